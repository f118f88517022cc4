"""Evolution on predictions: many candidates, of which few will be evaluated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.search.problem import Floats, Genes
from nas.search.variation import canonical, mutate
from search_spaces import SearchSpace

Score = Callable[[Genes], Floats]
"""Takes canonical genes `(n, d)`; gives how good they are in every direction, `(n, directions)`."""

_KEPT = 2


class RowHash:
    """Numbers rows of genes, equal rows alike.

    Args:
        dimensions: Length of a row.
    """

    def __init__(self, dimensions: int) -> None:
        fixed = np.random.default_rng(7919)
        self._factors = fixed.integers(1, 2**62, size=dimensions, dtype=np.int64) * 2 + 1

    def __call__(self, genes: Genes) -> Genes:
        """One number per row, shape `(n,)`."""
        with np.errstate(over="ignore"):
            mixed = (genes + 1) * self._factors
            mixed ^= mixed >> 29
            result: Genes = (mixed * self._factors[::-1]).sum(axis=1)
        return result


def evolve(
    space: SearchSpace,
    score: Score,
    start: Genes,
    rng: np.random.Generator,
    *,
    generations: int,
    children: int,
) -> tuple[Genes, Floats]:
    """Look for rows that are best in some direction.

    The best few rows of every direction are the parents; a child is a parent with few genes
    changed, or a cross of two parents that are good in nearby directions.

    Args:
        space: The space.
        score: How good rows are.
        start: Choice indices to start from, canonical, shape `(n, d)`, n at least 1.
        rng: Source of randomness.
        generations: Number of rounds.
        children: Rows per round.

    Returns:
        All distinct rows that were looked at, `(v, d)`, and their scores, `(v, directions)`.
    """
    number = RowHash(space.dimensions)
    keys, first = np.unique(number(start), return_index=True)
    rows = [start[first]]
    scores = [score(rows[0])]
    parents, quality = rows[0], scores[0]
    for _ in range(generations):
        parents, quality, order = _best(parents, quality)
        new = canonical(space, _offspring(space, parents, order, children, rng))
        new_keys, first = np.unique(number(new), return_index=True)
        fresh = ~np.isin(new_keys, keys)
        new = new[np.sort(first[fresh])]
        if len(new) == 0:
            continue
        keys = np.concatenate([keys, new_keys[fresh]])
        rows.append(new)
        scores.append(score(new))
        parents = np.concatenate([parents, new])
        quality = np.concatenate([quality, scores[-1]])
    return np.concatenate(rows), np.concatenate(scores)


def _best(rows: Genes, scores: Floats) -> tuple[Genes, Floats, Genes]:
    """The best rows of every direction; and for each direction where its best one is now."""
    order = np.empty((min(_KEPT, len(rows)), scores.shape[1]), dtype=np.int64)
    left = scores.copy()
    for best in order:  # few are kept, so that nothing has to be sorted
        best[:] = left.argmax(axis=0)
        np.put_along_axis(left, best[None], -np.inf, axis=0)
    chosen, where = np.unique(order, return_inverse=True)
    return rows[chosen], scores[chosen], where.reshape(order.shape)


def _offspring(
    space: SearchSpace, parents: Genes, order: Genes, count: int, rng: np.random.Generator
) -> Genes:
    kept, directions = order.shape
    at = rng.integers(0, directions, size=count)
    first = parents[order[rng.integers(0, kept, size=count), at]]
    # Half of the mates come from nearby directions, where there is an order among them.
    step = rng.integers(-directions // 8 - 1, directions // 8 + 2, size=count)
    mate = np.clip(at + step, 0, directions - 1)
    second = parents[order[rng.integers(0, kept, size=count), mate]]
    share = rng.random((count, 1))
    crossed = np.where(rng.random(first.shape) < share, second, first)
    kind = rng.random(count)
    changed = np.where((kind < 0.5)[:, None], first, crossed)
    result = changed.copy()
    once, more = kind < 0.7, kind >= 0.9
    result[once] = mutate(changed[once], space, rng)
    result[more] = mutate(changed[more], space, rng, 3.0)
    return result
