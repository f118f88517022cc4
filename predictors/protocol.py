"""What every way to predict the latency of architectures does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.noise import Noise
from search_spaces.errors import UserError
from search_spaces.space import Architecture

Floats = NDArray[np.float64]


class ArchitecturePredictor(Protocol):
    """Latency of architectures on one device under one workload, from whole subnets."""

    held_out: Floats
    """Relative errors of the subnets it was fitted on, each predicted without it, shape `(n,)`."""

    def fit(
        self,
        architectures: Sequence[Architecture],
        latency_ms: ArrayLike,
        *,
        noise: Noise | None = None,
    ) -> Self:
        """Learn from whole subnets that were measured.

        Args:
            architectures: The subnets.
            latency_ms: Their latency in ms, shape `(n,)`, each above 0.
            noise: How well they were measured, if that is known.

        Raises:
            UserError: A latency is not above 0 or not finite, or there are too few.
        """

    def widen(self, factor: float) -> None:
        """Multiply what is told of the error with `factor`."""

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean and standard deviation in ms, shape `(k,)` each.

        Nine of ten measured latencies lie within 1.645 standard deviations.
        """


def checked_latency(
    architectures: Sequence[Architecture], latency_ms: ArrayLike, least: int = 0
) -> Floats:
    """The latencies as an array, shape `(n,)`.

    Raises:
        UserError: They are not as many as the architectures, fewer than `least`, or one is not
            above 0 and finite.
    """
    measured = np.asarray(latency_ms, dtype=np.float64)
    if measured.shape != (len(architectures),):
        raise UserError(
            f"latencies of shape {measured.shape} for {len(architectures)} subnets; give one each"
        )
    wrong = measured[~(np.isfinite(measured) & (measured > 0))]
    if wrong.size:
        raise UserError(f"latency {wrong[0]} ms of a whole subnet is not above 0 and finite")
    if len(measured) < least:
        raise UserError(
            f"{len(measured)} whole subnets are too few to learn from; measure at least {least}"
        )
    return measured
