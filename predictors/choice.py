"""Which way to predict latency: the one that is least wrong on subnets it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from latency.noise import Noise
from predictors.calibration import widening
from predictors.protocol import ArchitecturePredictor, Floats
from search_spaces.errors import UserError
from search_spaces.space import Architecture

TIE = 0.1
"""A simpler candidate whose error is at most this share above the least is taken; and one that is
not further above it than a standard error: on a dozen subnets, luck tells more than that."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best of several fitted predictors, with wider intervals: the best was lucky too."""

    name: str
    predictor: ArchitecturePredictor
    errors: Mapping[str, float]
    """MAPE of each candidate on subnets it had not seen, as a share; the best first."""


def choose(
    candidates: Mapping[str, ArchitecturePredictor],
    architectures: Sequence[Architecture],
    latency_ms: ArrayLike,
    *,
    noise: Noise | None = None,
) -> Choice:
    """Fit all candidates, and take the one with the least cross-validated relative error.

    Args:
        candidates: Predictors by name; the simpler first, which is taken where it is about as
            good. One that cannot be fitted on so few is passed over.
        architectures: Whole subnets that were measured, at least one.
        latency_ms: Their latency in ms, shape `(n,)`, each above 0.
        noise: How well they were measured, if that is known.

    Raises:
        UserError: None of them could be fitted.
    """
    fitted, refusals = {}, []
    for name, candidate in candidates.items():
        try:
            fitted[name] = candidate.fit(architectures, latency_ms, noise=noise)
        except UserError as error:
            refusals.append(str(error))
    if not fitted or not len(architectures):
        raise UserError("; ".join(dict.fromkeys(refusals)) or "there is no subnet to choose by")
    held_out = {name: abs(predictor.held_out) for name, predictor in fitted.items()}
    errors = {name: float(error.mean()) for name, error in held_out.items()}
    least = min(errors, key=lambda name: errors[name])
    best = next(
        name
        for name, error in held_out.items()
        if errors[name] <= (1 + TIE) * errors[least]
        or errors[name] - errors[least] <= _standard_error(error - held_out[least])
    )
    fitted[best].widen(widening(list(held_out.values())))
    return Choice(
        name=best,
        predictor=fitted[best],
        errors=dict(sorted(errors.items(), key=lambda item: item[1])),
    )


def _standard_error(differences: Floats) -> float:
    """Of the mean of paired differences (Breiman's one-standard-error rule)."""
    count = len(differences)
    return float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
