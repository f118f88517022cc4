"""Latency of a whole subnet from the rows of a latency table, corrected by a few whole ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.noise import Noise
from latency.statistics import Z_95, t_quantile
from latency.table import LatencyTable, TableRow
from predictors.blocks import BlockCounts
from predictors.calibration import relative_std
from predictors.correction import TERMS, Correction
from predictors.protocol import checked_latency
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace

UNCORRECTED_STD, CORRECTED_STD = 0.05, 0.007
"""Errors of a table as a share, as they are expected before any; and of a corrected one."""


class TablePredictor:
    """Predicts the latency of architectures on one device under one workload.

    Latency is the sum of the fixed row and the rows of every block, corrected by whole subnets
    (`predictors.correction`): what a block takes in company depends on how much there is.

    The variance of a prediction is that of its rows, by their intervals, and that of the rest:
    what the whole subnets were missed by, each predicted without it.

    Args:
        space: The search space of the table.
        table: Rows of all blocks of the space.
        workload: Name of the workload.
    """

    def __init__(self, space: TransformerSpace, table: LatencyTable, workload: str) -> None:
        self.space = space
        self.table = table
        self.workload = workload
        self.correction = Correction()
        self.std = UNCORRECTED_STD
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
        self.correction, self.std = Correction(), UNCORRECTED_STD
        self.held_out = np.empty(0)
        if len(measured):
            counts = self._counts(architectures)
            self.correction, self.held_out = Correction.fit(
                *self._terms_and_places(counts), measured, noise.own if noise else 0.0
            )
            rest = relative_std(
                self.held_out,
                unfitted=UNCORRECTED_STD,
                remaining=CORRECTED_STD,
                noise=noise,
                known=self._row_std_ms(counts) / measured,
                fitted=len(TERMS),
            )
            self.std = round(rest, 6)
        return self

    def restore(self, fit: Mapping[str, Any]) -> TablePredictor:
        """Take over an earlier fit, as `to_json` of the one that was fitted told it."""
        self.correction, self.std = Correction.from_json(fit), fit["std"]
        return self

    def to_json(self) -> dict[str, Any]:
        """The fit as it stands in `table.json`."""
        return {
            **self.correction.to_json(),
            "std": self.std,
            "subnets": len(self.correction.weights),
        }

    def predict(
        self, architectures: Sequence[Architecture]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation in ms, shape `(n,)` each."""
        counts = self._counts(architectures)
        mean = self.mean_ms(counts)
        return mean, np.hypot(self.std * mean, self._row_std_ms(counts))

    def mean_ms(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predicted latency by what `BlockCounts` of the space gives, shape `(n,)`, ms."""
        return self.correction(*self._terms_and_places(counts))

    def widen(self, factor: float) -> None:
        """See `ArchitecturePredictor`; what the rows say of themselves stays."""
        self.std = round(factor * self.std, 6)

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

    def _terms_and_places(
        self, counts: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the correction takes: sums by kind, `(n, 3)`, ms; latency and size, `(n, 2)`."""
        terms = counts @ self._rows
        sizes = [terms.sum(axis=1), counts.sum(axis=1)]
        return terms, np.log(np.stack(sizes, axis=1))

    def _row_std_ms(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the rows' own errors make of each sum, shape `(n,)`, ms.

        Rows of one kind that are all too high are what the factors are for; this counts them as
        independent.
        """
        stds = self._row_stds @ np.array(self.correction.coefficients)
        std: NDArray[np.float64] = np.sqrt(counts**2 @ stds**2)
        return std


def _standard_error_ms(row: TableRow) -> float:
    """Standard error of a row by its 95 % interval."""
    half_width = (row.high_ms - row.low_ms) / 2
    # What was not measured in sessions has a normal interval
    return half_width / (t_quantile(row.sessions - 1) if row.sessions > 1 else Z_95)
