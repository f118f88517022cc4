"""Latency of a whole subnet from the rows of a latency table, corrected by a few whole ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.noise import Noise
from latency.statistics import t_quantile
from latency.table import LatencyTable
from predictors.blocks import BlockCounts
from predictors.calibration import relative_std
from predictors.protocol import checked_latency
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
    """Standard deviation of a prediction, as a share of it, beside that of its rows."""
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

    The variance of a prediction is that of its rows, by their intervals, and that of the rest:
    what the whole subnets were missed by, each predicted without it.

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
        self.held_out: NDArray[np.float64] = np.empty(0)

    def fit(
        self,
        architectures: Sequence[Architecture],
        latency_ms: ArrayLike,
        *,
        noise: Noise | None = None,
    ) -> TablePredictor:
        """Fit the correction.

        Args:
            architectures: Whole subnets that were measured.
            latency_ms: Their latency in ms, shape `(n,)`, each above 0.
            noise: How well they were measured, if that is known.

        Raises:
            UserError: A latency is not above 0, or not finite.
        """
        measured = checked_latency(architectures, latency_ms)
        if len(architectures) == 0:
            self.correction = Correction()
            self.held_out = np.empty(0)
            return self
        counts = self._counts(architectures)
        terms = counts @ self._rows / measured[:, None]  # (n, 3)
        left_out = []
        for index in range(len(measured)):
            kept = np.arange(len(measured)) != index
            left_out.append(terms[index] @ _factors(terms[kept]) - 1)
        self.held_out = np.array(left_out)
        factors = _factors(terms)
        rows = self._row_std_ms(counts, factors) / measured
        noise = noise or Noise()
        belief = max(UNCORRECTED_STD / math.sqrt(1 + len(measured)), noise.own)
        rest = relative_std(self.held_out, belief=belief, known=rows, fitted=len(factors))
        self.correction = Correction(
            coefficients=tuple(round(float(value), 6) for value in factors),
            # Shared once by the factors, once by what is measured in other sessions
            std=round(math.sqrt(rest**2 + 2 * noise.shared**2), 6),
            subnets=len(measured),
        )
        return self

    def predict(
        self, architectures: Sequence[Architecture]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation in ms, shape `(n,)` each."""
        counts = self._counts(architectures)
        factors = np.array(self.correction.coefficients)
        mean = counts @ (self._rows @ factors)
        rows = self._row_std_ms(counts, factors)
        return mean, np.hypot(self.correction.std * mean, rows)

    def latency_ms(self, arch: Architecture) -> float:
        """Predicted latency of one architecture: for one, faster than `predict`."""
        factors = dict(zip(TERMS, self.correction.coefficients, strict=True))
        return sum(
            factors[block.kind] * self.table.latency_ms(self.workload, block)
            for block in self.space.blocks(arch)
        )

    def terms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Sums of the fixed, the attention and the FFN rows, without factors, `(n, 3)`, ms."""
        sums: NDArray[np.float64] = self._counts(architectures) @ self._rows
        return sums

    @cached_property
    def _counts(self) -> BlockCounts:
        return BlockCounts(self.space)

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        """Latency of each block in the column of its kind, shape `(blocks, 3)`, ms."""
        rows = np.zeros((len(self._counts.blocks), len(TERMS)))
        for place, block in enumerate(self._counts.blocks):
            rows[place, TERMS.index(block.kind)] = self.table.latency_ms(self.workload, block)
        return rows

    @cached_property
    def _row_stds(self) -> NDArray[np.float64]:
        """Standard error of each block's row in the column of its kind, `(blocks, 3)`, ms."""
        measured = {row.block: row for row in self.table.rows if row.workload == self.workload}
        stds = np.zeros_like(self._rows)
        for place, block in enumerate(self._counts.blocks):
            row = measured.get(block)
            if row is not None and row.std_ms is not None:
                stds[place, TERMS.index(block.kind)] = row.std_ms
            elif row is not None and row.sessions > 1:
                half_width = (row.high_ms - row.low_ms) / 2
                stds[place, TERMS.index(block.kind)] = half_width / t_quantile(row.sessions - 1)
        return stds

    def _row_std_ms(
        self, counts: NDArray[np.float64], factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What the rows' own errors make of each sum, shape `(n,)`, ms.

        Rows of one kind that are all too high are what the factors are for; this counts them as
        independent.
        """
        std: NDArray[np.float64] = np.sqrt(counts**2 @ (self._row_stds @ factors) ** 2)
        return std


def _factors(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of `terms @ factors = 1` with a pull to factors of 1, shape `(3,)`."""
    prior = PRIOR_STRENGTH * np.eye(terms.shape[1])
    return np.linalg.solve(terms.T @ terms + prior, terms.sum(axis=0) + prior.sum(axis=0))
