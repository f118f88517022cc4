"""Which architectures to measure on a device: those that make predictions of all others sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserError

Array = NDArray[np.float64]

LOST = 0.2
"""Share of measurements that may be worth nothing, such as those of a slow device."""
MOST_PASSES = 10


def choose_rows(rows: Array, count: int, *, precision: Array) -> NDArray[np.int64]:
    """The measurements after which predictions for all rows are surest.

    A prediction is `rows @ weights`, a measurement the same with an error of variance 1, and
    before any, the weights have a normal distribution of the given precision. The mean variance
    of the predictions depends on which rows are measured, not on what is found: a Bayesian
    I-optimal design (Chaloner and Verdinelli 1995), found by exchanging one row after another
    (Fedorov 1972). Its mean is taken over which of the measurements is lost, if one is: a design
    that rests on each of its rows is of little use where one of ten may be wrong.

    Args:
        rows: Terms of all that may be measured, and is to be predicted, shape `(n, p)`.
        count: How many of them to measure.
        precision: One over the variance of each weight before anything is measured, > 0,
            shape `(p,)`.

    Returns:
        Indices of `count` different rows, in ascending order.

    Raises:
        UserError: There are not so many rows.
    """
    if not 0 < count <= len(rows):
        raise UserError(
            f"{count} architectures to measure cannot be chosen from {len(rows)}; "
            "give a larger pool, or measure fewer"
        )
    design = _Design(rows, precision)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(design.with_each(chosen).argmin()))
    best = np.inf
    for _ in range(MOST_PASSES):
        before = best
        for place in range(count):
            others = chosen[:place] + chosen[place + 1 :]
            variances = design.with_each(others)
            chosen = [*others[:place], int(variances.argmin()), *others[place:]]
            best = float(variances.min())
        if best > before * (1 - 1e-6):
            break
    return np.array(sorted(chosen))


class _Design:
    """Mean variance of predictions for all rows, when some of them are measured."""

    def __init__(self, rows: Array, precision: Array) -> None:
        self._rows = rows
        self._before = np.diag(precision)
        self._moment = rows.T @ rows / len(rows)

    def with_each(self, chosen: Sequence[int]) -> Array:
        """The variance with one more measured, for each that this may be, shape `(n,)`.

        Infinite for those that are chosen.
        """
        count = len(chosen) + 1
        lost = LOST / (1 + (count - 1) * LOST)  # of each, where no two are lost
        alone, added = self._with(chosen)
        total = (1 - count * lost) * added + lost * alone
        for place in range(len(chosen)):
            total += lost * self._with([*chosen[:place], *chosen[place + 1 :]])[1]
        total[list(chosen)] = np.inf
        return np.asarray(total)

    def _with(self, chosen: Sequence[int]) -> tuple[float, Array]:
        """The variance with those chosen alone, and with each other row in addition."""
        measured = self._rows[list(chosen)]
        covariance = np.linalg.inv(self._before + measured.T @ measured)
        reach = self._rows @ covariance  # (n, p)
        own = np.einsum("np,np->n", reach, self._rows)
        gain = np.einsum("np,np->n", reach @ self._moment, reach) / (1 + own)
        alone = float(np.sum(covariance * self._moment))
        return alone, alone - gain
