"""Random genes and random changes of genes, on ordered discrete choices."""

import numpy as np

from nas.search.problem import Floats, Genes
from search_spaces import SearchSpace


def canonical(space: SearchSpace, genes: Genes) -> Genes:
    """Rows with 0 for the genes that do not count, shape `(n, d)`."""
    return np.where(space.active_mask(genes), genes, 0)


def mutate(
    rows: Genes, space: SearchSpace, rng: np.random.Generator, changes: float = 1.0
) -> Genes:
    """Change some genes of every row, at least one where there is a choice.

    Half of the changes go to a neighbouring choice (choices are ordered), half to any other one.

    Args:
        rows: Choice indices, shape `(n, d)`.
        space: The space they belong to.
        rng: Source of randomness.
        changes: Number of genes that change on average.

    Returns:
        Changed copies, shape `(n, d)`, not canonical.
    """
    open_columns = np.flatnonzero(space.cardinalities > 1)
    result = rows.copy()
    if len(open_columns) == 0 or len(rows) == 0:
        return result
    choices = space.cardinalities[open_columns]
    old = rows[:, open_columns]
    hit = rng.random(old.shape) < min(1.0, changes / len(open_columns))
    hit[np.arange(len(rows)), rng.integers(0, len(open_columns), size=len(rows))] = True
    other = (old + rng.integers(1, choices, size=old.shape)) % choices
    step = old + np.where(rng.random(old.shape) < 0.5, -1, 1)
    # At an end of the range the only neighbour is inwards.
    step = np.where(step < 0, 1, np.where(step >= choices, choices - 2, step))
    new = np.where(rng.random(old.shape) < 0.5, step, other)
    result[:, open_columns] = np.where(hit, new, old)
    return result


def single_changes(genes: Genes, space: SearchSpace) -> Genes:
    """All rows that differ from `genes`, shape `(d,)`, in one gene; shape `(n, d)`."""
    columns = np.repeat(np.arange(space.dimensions), space.cardinalities)
    first = np.cumsum(space.cardinalities) - space.cardinalities
    values = np.arange(len(columns)) - np.repeat(first, space.cardinalities)
    rows = np.repeat(genes[None, :], len(columns), axis=0)
    rows[np.arange(len(columns)), columns] = values
    return np.asarray(rows[values != genes[columns]], dtype=np.int64)


def tilted_genes(levels: Floats, space: SearchSpace, rng: np.random.Generator) -> Genes:
    """Random genes, each row with a bias of its own towards small or large choices.

    Uniform genes crowd the middle of the size range; rows of levels spread over `[0, 1]` cover
    it. Per row and gene the distribution is the one of largest entropy with the given mean
    (exponential in the index), so that rows of one size differ as much as they can.

    Args:
        levels: Mean index of each row as a share of the largest, in `(0, 1)`, shape `(n,)`.
        space: The space.
        rng: Source of randomness.

    Returns:
        Choice indices, shape `(n, d)`.
    """
    tilts = np.linspace(-40.0, 40.0, 801)
    rows = np.zeros((len(levels), space.dimensions), dtype=np.int64)
    for count in np.unique(space.cardinalities):
        columns = np.flatnonzero(space.cardinalities == count)
        if count == 1:
            continue
        place = np.arange(count) / (count - 1)
        weights = np.exp(tilts[:, None] * (place - (tilts[:, None] > 0)))
        weights /= weights.sum(axis=1, keepdims=True)
        tilt = np.interp(levels, weights @ place, tilts)
        chance = np.exp(tilt[:, None] * (place - (tilt[:, None] > 0)))
        cumulative = np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)
        draws = rng.random((len(levels), len(columns)))
        index = (draws[:, :, None] > cumulative[:, None, :]).sum(axis=2)
        rows[:, columns] = np.minimum(index, count - 1)
    return rows


def stratified_levels(count: int, rng: np.random.Generator) -> Floats:
    """One random level in each of `count` equal parts of `(0, 1)`, in random order."""
    return (rng.permutation(count) + rng.random(count)) / count
