"""Every architecture of a small space, in a fixed order."""

import numpy as np

from nas.search.problem import Genes
from search_spaces import SearchSpace


def enumerate_genes(space: SearchSpace) -> Genes:
    """Canonical genes of every architecture; ask for `space.size` first.

    Column by column, so that a space whose conditions leave little of the product stays small.

    Args:
        space: The space; a controller comes before what it controls.

    Returns:
        Choice indices, shape `(space.size, d)`, in lexicographic order.
    """
    rows = np.zeros((1, 0), dtype=np.int64)
    counts = np.ones((1, 0), dtype=np.bool_)
    for column, name in enumerate(space.names):
        active = np.ones(len(rows), dtype=np.bool_)
        for controller, values in space.active.get(name, {}).items():
            at = space.names.index(controller)
            allowed = np.array([value in values for value in space.choices[controller]])
            active &= counts[:, at] & allowed[rows[:, at]]
        repeats = np.where(active, space.cardinalities[column], 1)
        first = np.repeat(np.cumsum(repeats) - repeats, repeats)
        index = np.arange(int(repeats.sum()), dtype=np.int64) - first
        rows = np.column_stack([np.repeat(rows, repeats, axis=0), index])
        counts = np.column_stack([np.repeat(counts, repeats, axis=0), np.repeat(active, repeats)])
    return rows
