"""Genes as numbers that a linear model can weigh: one contribution for each choice of each gene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
Genes = NDArray[np.int64]

ABSENT = -0.5
"""Place of a gene that does not count, on the line from 0 (first choice) to 1 (last choice)."""
_REACH = 0.5
"""Distance on that line over which the contributions of choices are alike, beyond a trend."""

_MINOR = 0.1
"""How much a change of a minor gene tells beside one of the others. Of the schemes of a transformer
there are four for each layer, and most change little: with 1, a search over schemes and widths
found less than one over widths."""


class GeneFeatures:
    """Orthogonal contrasts of every gene: its trend, then what deviates from the trend.

    Choices are ordered, so one column per gene is its place on a line from 0 to 1. What two
    choices contribute need not follow the order: further columns span the rest, neighbouring
    choices more alike than distant ones (an exponential kernel on the line). A gene that does not
    count has a place of its own below the first choice. Columns have mean 0 over the choices.
    Those of minor genes are smaller.

    Args:
        space: Any space with a choice in at least one gene.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        conditional = np.array([name in space.active for name in space.names])
        levels = space.cardinalities + conditional
        minor = np.array([name in space.minor for name in space.names])
        self._sizes = None if minor.all() or not minor.any() else ~minor
        most = int(levels.max())
        table = np.zeros((space.dimensions, most, max(1, most - 1)))
        for gene, (choices, absent) in enumerate(
            zip(space.cardinalities.tolist(), conditional.tolist(), strict=True)
        ):
            place = np.arange(choices) / max(1, choices - 1)
            if absent:
                place = np.append(place, ABSENT)
            if len(place) > 1:
                columns = _contrasts(place) * (_MINOR if minor[gene] else 1.0)
                table[gene, : len(place), : columns.shape[1]] = columns
        used = np.abs(table).sum(axis=1) > 0
        gene_of, rank = np.nonzero(used)
        self.groups: NDArray[np.int64] = gene_of * 2 + (rank > 0)
        """Group of each column, shape `(f,)`: twice the gene, one more if it is no trend."""
        self._table = table
        self._columns = gene_of * table.shape[2] + rank
        self._genes = np.arange(space.dimensions)

    def __call__(self, genes: Genes) -> Floats:
        """Features of choice indices `(n, d)`, shape `(n, f)`."""
        mask = self._space.active_mask(genes)
        level = np.where(mask, genes, self._space.cardinalities)
        wide = self._table[self._genes, level].reshape(len(genes), -1)
        features: Floats = wide[:, self._columns]
        return features

    def size(self, genes: Genes) -> Floats:
        """What says how large an architecture is, shape `(n, 1 or 2)`.

        The mean place of the genes on their lines, minor ones aside; with genes that may be absent
        also the share of those that are there.
        """
        mask = self._space.active_mask(genes)
        place = np.where(mask, genes / np.maximum(self._space.cardinalities - 1, 1), 0.0)
        if self._sizes is not None:
            mask, place = mask[:, self._sizes], place[:, self._sizes]
        sums = [place.mean(axis=1)]
        if self._space.active:
            sums.append(mask.mean(axis=1))
        return np.stack(sums, axis=1)


def _contrasts(place: Floats) -> Floats:
    """Columns over the choices of a gene, shape `(choices, choices - 1)`: trend, then the rest."""
    trend: Floats = place - place.mean()
    trend /= np.sqrt((trend**2).mean())
    if len(place) == 2:
        return np.asarray(trend[:, None])
    basis = np.column_stack([np.ones(len(place)), trend]) / np.sqrt(len(place))
    away = np.eye(len(place)) - basis @ basis.T
    kernel = away @ np.exp(-np.abs(place[:, None] - place[None, :]) / _REACH) @ away
    values, vectors = np.linalg.eigh(kernel)
    rest = vectors[:, 2:] * np.sqrt(np.maximum(values[2:], 0.0))
    # The sign of an eigenvector is arbitrary, and must not depend on the library.
    largest = np.abs(rest).argmax(axis=0)
    rest *= np.where(rest[largest, np.arange(rest.shape[1])] < 0, -1.0, 1.0)
    rest /= np.sqrt((rest**2).sum(axis=1).mean())
    return np.column_stack([trend, rest])
