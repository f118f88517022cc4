"""Terms that the latency of a layered network is a weighted sum of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_COUNT = 64
"""Whole numbers up to this one may be a number of layers."""
MAX_COUNTS = 5
"""Columns that are taken for numbers of layers, such as those of the stages of a network."""
SECOND_ORDER = 0.5
"""How much smaller the weight of two widths together is expected to be than that of one."""

MAX_PAIRED = 200
"""Terms, pairs among them, that a fit takes seconds with."""


@dataclass(frozen=True, kw_only=True)
class CostTerms:
    """Terms of the cost of an architecture; units of the features do not matter.

    Free terms: 1 and each number of layers. Held terms: each width times all of these together
    and times each number of layers, products of two numbers of layers, and, with enough rows,
    products of two widths times each number of layers.

    Which columns are numbers of layers is seen from the data: whole numbers up to 64. Without any,
    the terms are those of a linear or quadratic function.
    """

    counts: tuple[int, ...]
    """Columns that are numbers of layers."""
    widths: tuple[int, ...]
    """Other columns that vary."""
    center: Array
    """Means of the columns, shape `(d,)`."""
    spread: Array
    """Standard deviations of the columns, shape `(d,)`."""
    pairs: bool
    """Whether two widths may matter together."""

    @classmethod
    def of(cls, x: Array, y: Array | None = None) -> Self:
        """Terms for features `x`, shape `(n, d)`, and latencies `y`, `(n,)`, if there are any."""
        counts = _count_columns(x, y)
        center, spread = x.mean(axis=0), x.std(axis=0)
        varies = spread > 1e-9 * np.abs(center)
        widths = tuple(int(j) for j in np.flatnonzero(varies) if j not in counts)
        terms = cls(counts=counts, widths=widths, center=center, spread=spread, pairs=True)
        return terms.for_rows(len(x))

    def for_rows(self, count: int) -> Self:
        """The same terms, less the pairs where `count` rows are too few for so many terms."""
        terms = 1 + len(self.counts) + len(self.held_factors)
        return replace(self, pairs=self.pairs and terms <= min(MAX_PAIRED, count // 2))

    @property
    def held_factors(self) -> Array:
        """How large the weights of the held terms may be, relative to each other."""
        counts, widths = len(self.counts), len(self.widths)
        ones = widths * (1 + counts) + counts * (counts + 1) // 2
        pairs = max(1, counts) * widths * (widths + 1) // 2 if self.pairs else 0
        return np.concatenate([np.ones(ones), np.full(pairs, SECOND_ORDER)])

    def __call__(self, x: Array) -> Array:
        """Terms of features of shape `(n, d)`, shape `(n, p)`; the free ones come first."""
        widths = list(self.widths)
        z = (x[:, widths] - self.center[widths]) / self.spread[widths]  # (n, w)
        layers = x[:, list(self.counts)] / self.center[list(self.counts)]  # (n, c)
        free = np.concatenate([np.ones((len(x), 1)), layers], axis=1)
        depths = [free.sum(axis=1), *layers.T]
        terms = [free, *(depth[:, None] * z for depth in depths), _products(layers - 1)]
        if self.pairs:
            terms += [depth[:, None] * _products(z) for depth in depths[1:] or depths]
        return np.concatenate(terms, axis=1)


def _products(columns: Array) -> Array:
    """Of every two columns and of each with itself, shape `(n, c * (c + 1) / 2)`."""
    first, second = np.triu_indices(columns.shape[1])
    return np.asarray(columns[:, first] * columns[:, second])


def _count_columns(x: Array, y: Array | None) -> tuple[int, ...]:
    """Columns that may be numbers of layers.

    If many, the ones that go with latency most; that vary most, before any is known.
    """
    if y is not None and np.ptp(y) == 0:
        return ()
    found = [
        (-abs(float(np.corrcoef(column, y)[0, 1]) if y is not None else _variation(column)), index)
        for index, column in enumerate(x.T)
        if column.min() >= 1 and column.max() <= MAX_COUNT and np.ptp(column) > 0
        if np.array_equal(column, np.round(column))
    ]
    return tuple(index for _, index in sorted(found)[:MAX_COUNTS])


def _variation(column: Array) -> float:
    return float(column.std() / column.mean())
