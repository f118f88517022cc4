"""Energy and peak memory of a whole subnet, from the rows of a latency table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latency.table import LatencyTable
from predictors.blocks import BlockCounts
from search_spaces.errors import UserError
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace


class ResourcePredictor:
    """The sum of a subnet's rows, times one factor that whole subnets tell.

    Args:
        space: The search space of the table.
        table: Rows of all blocks of the space.
        workload: Name of the workload.
        resource: One of `latency.resources.RESOURCES`.

    Raises:
        UserError: The device does not tell the resource of every block.
    """

    def __init__(
        self, space: TransformerSpace, table: LatencyTable, workload: str, resource: str
    ) -> None:
        self._counts = BlockCounts(space)
        told = [getattr(table.row(workload, block), resource) for block in self._counts.blocks]
        if None in told:
            raise UserError(
                f"the device does not tell {workload}_{resource} of "
                f"{sum(value is None for value in told)} of {len(told)} blocks; take it out of "
                "search.objectives and search.bounds, or measure where it is told"
            )
        self._told = np.array(told, dtype=np.float64)
        self.factor = 1.0

    def fit(self, architectures: Sequence[Architecture], measured: ArrayLike) -> ResourcePredictor:
        """Take the factor from whole subnets: the median of what they took over their sums.

        Args:
            architectures: Whole subnets that were measured; none leave the factor at 1.
            measured: What each took, shape `(n,)`.
        """
        sums = self._counts(architectures) @ self._told
        ratios = np.asarray(measured, dtype=np.float64)[sums > 0] / sums[sums > 0]
        self.factor = float(np.median(ratios)) if ratios.size else 1.0
        return self

    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """What each architecture takes, shape `(n,)`, in the unit of the resource."""
        predicted: NDArray[np.float64] = self.factor * (self._counts(architectures) @ self._told)
        return predicted
