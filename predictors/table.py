"""Latency of a whole subnet from the rows of a latency table, corrected by a few whole ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.table import LatencyTable
from search_spaces.errors import UserError
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace

TERMS = ("fixed", "attention", "ffn")
PRIOR_STRENGTH = 1e-3
"""Weight of the belief that each term's factor is 1, against one relative error of a subnet."""
UNCORRECTED_STD = 0.05


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Factors of the terms of a table sum, fitted on whole subnets."""

    coefficients: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Factor of the fixed, the attention and the FFN rows."""
    std: float = UNCORRECTED_STD
    """Standard deviation of a prediction, as a share of it (leave-one-out)."""
    subnets: int = 0
    """Whole subnets it was fitted on."""

    def to_json(self) -> dict[str, object]:
        """The correction as it stands in `table.json`."""
        return {
            "kind": "factors",
            "terms": list(TERMS),
            "coefficients": list(self.coefficients),
            "std": self.std,
            "subnets": self.subnets,
        }


class TablePredictor:
    """Predicts the latency of architectures on one device under one workload.

    Latency is the sum of the fixed row and the rows of every block, each of the three kinds times
    a factor. The factors are fitted to whole subnets by least squares on the relative error, with
    a weak pull to 1.

    Args:
        space: The search space of the table.
        table: Rows of all blocks of the space.
        workload: Name of the workload.
        correction: An earlier fit.
    """

    def __init__(
        self,
        space: TransformerSpace,
        table: LatencyTable,
        workload: str,
        correction: Correction | None = None,
    ) -> None:
        self.space = space
        self.table = table
        self.workload = workload
        self.correction = correction or Correction()

    def fit(self, architectures: Sequence[Architecture], latency_ms: ArrayLike) -> TablePredictor:
        """Fit the correction.

        Args:
            architectures: Whole subnets that were measured.
            latency_ms: Their latency in ms, shape `(n,)`, each above 0.

        Raises:
            UserError: A latency is not above 0, or not finite.
        """
        measured = np.asarray(latency_ms, dtype=np.float64)
        wrong = measured[~(np.isfinite(measured) & (measured > 0))]
        if wrong.size:
            raise UserError(f"latency {wrong[0]} ms of a whole subnet is not above 0 and finite")
        if len(architectures) == 0:
            self.correction = Correction()
            return self
        terms = self._terms(architectures) / measured[:, None]  # (n, 3)
        left_out = []
        for index in range(len(measured)):
            kept = np.arange(len(measured)) != index
            left_out.append(terms[index] @ _factors(terms[kept]) - 1)
        self.correction = Correction(
            coefficients=tuple(round(float(value), 6) for value in _factors(terms)),
            std=round(float(np.sqrt(np.mean(np.square(left_out)))), 6),
            subnets=len(measured),
        )
        return self

    def predict(
        self, architectures: Sequence[Architecture]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation in ms, shape `(n,)` each.

        The deviation is the correction's and that of the interpolated rows, taken as independent.
        """
        mean = self._terms(architectures) @ np.array(self.correction.coefficients)
        return mean, np.hypot(mean * self.correction.std, self._interpolation_std(architectures))

    def latency_ms(self, arch: Architecture) -> float:
        """Predicted latency of one architecture."""
        return float(self.predict([arch])[0][0])

    def _interpolation_std(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """What interpolated rows may be off together, shape `(n,)`, ms.

        A row that counts several times is off by the same each time.
        """
        std = np.zeros(len(architectures))
        if all(row.std_ms is None for row in self.table.rows):
            return std
        factors = dict(zip(TERMS, self.correction.coefficients, strict=True))
        for index, arch in enumerate(architectures):
            std[index] = math.hypot(
                *(
                    count * factors[block.kind] * self.table.std_ms(self.workload, block)
                    for block, count in Counter(self.space.blocks(arch)).items()
                )
            )
        return std

    def _terms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Table sums by kind of row, shape `(n, 3)`, ms."""
        sums = np.zeros((len(architectures), len(TERMS)))
        for row, arch in enumerate(architectures):
            for block in self.space.blocks(arch):
                latency = self.table.latency_ms(self.workload, block)
                sums[row, TERMS.index(block.kind)] += latency
        return sums


def _factors(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of `terms @ factors = 1` with a pull to factors of 1, shape `(3,)`."""
    prior = PRIOR_STRENGTH * np.eye(terms.shape[1])
    return np.linalg.solve(terms.T @ terms + prior, terms.sum(axis=0) + prior.sum(axis=0))
