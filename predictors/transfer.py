"""Latency on a new device from another device's table and a few whole subnets of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from latency.noise import Noise
from predictors.blocks import BlockCounts
from predictors.calibration import folds, relative_std, widening
from predictors.correction import TERMS
from predictors.design import choose_rows
from predictors.protocol import Floats, checked_latency
from predictors.table import TablePredictor
from search_spaces.errors import UserError
from search_spaces.space import Architecture

LEAST_SUBNETS = 2
UNFITTED_STD = 0.25
DOUBTS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""How much the devices may differ in what they are slow at, as a share; chosen by the data."""
EXPECTED_DOUBT = 0.3
"""Before anything is measured."""
ERROR = 0.02
"""What a subnet is expected to be missed by where the devices differ as believed."""


class TransferPredictor:
    """Predicts latency on a new device as that on a known one, each part times a factor.

    All parts together are faster or slower by one factor, which is free. Beyond that each kind of
    row has a factor of its own, and a slope in the logarithm of each of its widths: wide products
    are what devices differ in; and the device may take time for each call and each layer. These
    are held to the source's (ridge), as tightly as fits the subnets when each is left out in turn.

    Args:
        source: The other device's table, for the same space and an equal workload; its
            correction, too, if it was fitted.
    """

    def __init__(self, source: TablePredictor) -> None:
        self.source = source
        self.held_out: Floats = np.empty(0)
        self.std = UNFITTED_STD
        self._weights: Floats | None = None
        self._counts = BlockCounts(source.space)
        self._block_terms = _block_terms(source, self._counts)

    def propose(self, pool: Sequence[Architecture], count: int) -> list[Architecture]:
        """The subnets of `pool` to measure on the new device; see `predictors.design`.

        Raises:
            UserError: The pool has fewer than `count`.
        """
        terms = self._terms(pool)
        chosen = choose_rows(terms / terms[:, :1], count, precision=_penalty(terms, EXPECTED_DOUBT))
        return [pool[index] for index in chosen]

    def fit(
        self,
        architectures: Sequence[Architecture],
        latency_ms: ArrayLike,
        *,
        noise: Noise | None = None,
    ) -> TransferPredictor:
        """See `ArchitecturePredictor`; needs 2 whole subnets, and is meant for 10."""
        measured = checked_latency(architectures, latency_ms, LEAST_SUBNETS)
        relative = self._terms(architectures) / measured[:, None]  # (n, f), that are to be 1
        fold = folds(len(measured))
        errors = {}
        for doubt in DOUBTS:
            missed = np.empty_like(measured)
            for one in range(fold.max() + 1):
                rest, out = fold != one, fold == one
                missed[out] = relative[out] @ _weights(relative[rest], doubt) - 1
            errors[doubt] = missed
        best = min(errors, key=lambda doubt: float(np.abs(errors[doubt]).mean()))
        self._weights = _weights(relative, best)
        self.held_out = errors[best]
        self.std = relative_std(
            self.held_out * widening(list(errors.values())),
            unfitted=UNFITTED_STD,
            noise=noise,
            fitted=4,
        )
        return self

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """See `ArchitecturePredictor`.

        Raises:
            UserError: Nothing was fitted yet.
        """
        if self._weights is None:
            raise UserError("this predictor has not learned anything yet; call fit first")
        terms = self._terms(architectures)
        # A slope may go below 0 where no subnet was measured; no device is that fast
        mean = np.maximum(terms @ self._weights, 0.1 * self._weights[0] * terms[:, 0])
        return mean, self.std * mean

    def widen(self, factor: float) -> None:
        """See `ArchitecturePredictor`."""
        self.std = round(factor * self.std, 6)

    def _terms(self, architectures: Sequence[Architecture]) -> Floats:
        """Parts of the source's latency, the whole of it first, shape `(n, f)`, ms."""
        counts = self._counts(architectures)
        terms: Floats = counts @ self._block_terms
        return terms * (self.source.mean_ms(counts) / terms[:, 0])[:, None]


def _block_terms(source: TablePredictor, counts: BlockCounts) -> Floats:
    """What a block adds to each term, shape `(blocks, f)`; all columns in ms of the source."""
    factors = dict(zip(TERMS, source.correction.coefficients, strict=True))
    latency = np.array(
        [
            factors[block.kind] * source.table.latency_ms(source.workload, block)
            for block in counts.blocks
        ]
    )
    columns = [latency]
    for kind, inner in (("fixed", None), ("attention", "heads"), ("ffn", "ffn")):
        of_kind = np.array([block.kind == kind for block in counts.blocks])
        columns.append(np.where(of_kind, latency, 0.0))
        # A device may take some time for each, however wide
        columns.append(np.where(of_kind, latency[of_kind].mean(), 0.0))
        for name in ("embed", inner) if inner else ("embed",):
            widths = np.log([dict(block.widths).get(name, 1) for block in counts.blocks])
            slope = widths - widths[of_kind].mean()
            columns.append(np.where(of_kind, latency * slope, 0.0))
    return np.stack(columns, axis=1)


def _weights(relative: Floats, doubt: float) -> Floats:
    """Weights of the terms such that `relative @ weights` is 1, shape `(f,)`.

    The first is free; the others are believed to be 0 within `doubt` times it.
    """
    speed = 1 / float(np.median(relative[:, 0]))
    x = relative * speed
    held = np.diag(_penalty(x, doubt))
    found: Floats = np.linalg.solve(x.T @ x + held, x.sum(axis=0))
    return found * speed


def _penalty(terms: Floats, doubt: float) -> Floats:
    """Of the weights' squares, in units of that of a subnet's relative error, shape `(f,)`."""
    penalty = np.full(terms.shape[1], (ERROR / doubt) ** 2)
    penalty[0] = 1e-9
    return penalty
