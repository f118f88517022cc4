"""Latency of a whole subnet from the rows of a latency table, corrected by a few whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.noise import Noise
from latency.statistics import Z_95, t_quantile
from latency.table import LatencyTable, TableRow
from predictors.blocks import BlockCounts
from predictors.calibration import relative_std
from predictors.protocol import checked_latency
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace

TERMS = ("fixed", "attention", "ffn")
PRIOR_STRENGTH = 1e-3
"""Weight of the belief that each term's factor is 1, against one relative error of a subnet."""
LEAST_FACTOR = 0.1
"""Noise may ask for less, and for latencies below 0."""
UNCORRECTED_STD, CORRECTED_STD = 0.05, 0.01
"""Errors of a table as a share, as they are expected before any; and of a corrected one."""


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
        rest = relative_std(
            self.held_out,
            unfitted=UNCORRECTED_STD,
            remaining=CORRECTED_STD,
            noise=noise,
            known=rows,
            fitted=len(factors),
        )
        self.correction = Correction(
            coefficients=tuple(round(float(value), 6) for value in factors),
            std=round(rest, 6),
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

    def widen(self, factor: float) -> None:
        """See `ArchitecturePredictor`; what the rows say of themselves stays."""
        std = round(factor * self.correction.std, 6)
        self.correction = replace(self.correction, std=std)

    @cached_property
    def _count(self) -> BlockCounts:
        return BlockCounts(self.space)

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        """Latency of each block in the column of its kind, shape `(blocks, 3)`, ms."""
        return self._by_kind([row.latency_ms if row else 0.0 for row in self._measured])

    @cached_property
    def _row_stds(self) -> NDArray[np.float64]:
        """Standard error of each block's row in the column of its kind, `(blocks, 3)`, ms."""
        return self._by_kind([_standard_error_ms(row) if row else 0.0 for row in self._measured])

    @cached_property
    def _measured(self) -> list[TableRow | None]:
        """The row of each block; None where there is none."""
        rows = {row.block: row for row in self.table.rows if row.workload == self.workload}
        return [rows.get(block.timed) for block in self._count.blocks]

    def _by_kind(self, values: Sequence[float]) -> NDArray[np.float64]:
        kinds = [TERMS.index(block.kind) for block in self._count.blocks]
        columns: NDArray[np.float64] = np.eye(len(TERMS))[kinds] * np.array(values)[:, None]
        return columns

    def _counts(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Number of times that each block occurs, shape `(n, blocks)`.

        Raises:
            UserError: One that occurs was not measured.
        """
        counts = self._count(architectures)
        for place in np.flatnonzero(counts.any(axis=0)):
            if self._measured[place] is None:
                self.table.latency_ms(self.workload, self._count.blocks[place])  # says so
        return counts

    def _row_std_ms(
        self, counts: NDArray[np.float64], factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What the rows' own errors make of each sum, shape `(n,)`, ms.

        Rows of one kind that are all too high are what the factors are for; this counts them as
        independent.
        """
        std: NDArray[np.float64] = np.sqrt(counts**2 @ (self._row_stds @ factors) ** 2)
        return std


def _standard_error_ms(row: TableRow) -> float:
    """Standard error of a row by its 95 % interval."""
    half_width = (row.high_ms - row.low_ms) / 2
    # What was not measured in sessions has a normal interval
    return half_width / (t_quantile(row.sessions - 1) if row.sessions > 1 else Z_95)


def _factors(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of `terms @ factors = 1` with a pull to factors of 1, shape `(3,)`.

    None goes below `LEAST_FACTOR`: those that would stay there, and the others are fitted again.
    """
    factors = np.ones(terms.shape[1])
    free = np.ones(terms.shape[1], dtype=np.bool_)
    while free.any():
        x, rest = terms[:, free], 1 - terms[:, ~free] @ factors[~free]
        prior = PRIOR_STRENGTH * np.eye(x.shape[1])
        factors[free] = np.linalg.solve(x.T @ x + prior, x.T @ rest + PRIOR_STRENGTH)
        low = free & (factors < LEAST_FACTOR)
        if not low.any():
            break
        factors[low] = LEAST_FACTOR
        free &= ~low
    return factors
