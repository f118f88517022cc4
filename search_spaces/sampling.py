"""Sampling that is uniform over size, where uniform genes crowd the middle of the range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search_spaces.space import Architecture, SearchSpace

LEAST_STRATA = 64
"""A walk ends within this part of the cost range of its target, however few are sampled."""


def sample_by_cost(
    space: SearchSpace,
    cost: Callable[[Architecture], float],
    count: int,
    rng: np.random.Generator,
) -> list[Architecture]:
    """Architectures whose cost is spread evenly between the smallest's and the largest's.

    One random target per stratum of the cost range; a random architecture walks towards it by
    single-gene moves, so that what is sampled at one size still varies in shape.

    Args:
        space: Where to sample.
        cost: Any cost that grows with the genes, such as parameters or a table's latency.
        count: How many; fewer come back only if the space has fewer.
        rng: Source of randomness.

    Returns:
        Distinct architectures, `min(count, space.size)` of them, in order of their targets.
    """
    low, high = cost(space.smallest), cost(space.largest)
    count = min(count, space.size)
    targets = low + (high - low) * (np.arange(count) + rng.random(count)) / max(count, 1)
    near = (high - low) / max(4 * count, LEAST_STRATA)
    found: dict[Architecture, None] = {}
    for target in targets:
        arch = _walk_to(space, cost, float(target), near, rng)
        for _ in range(20):
            if arch not in found:
                break
            arch = _walk_to(space, cost, float(target), 4 * near, rng)
        found[arch] = None
    while len(found) < count:
        found[_unseen(space, found, rng)] = None
    return list(found)


def sample_widely(space: SearchSpace, count: int, rng: np.random.Generator) -> list[Architecture]:
    """Architectures of all sizes and shapes: genes as such, and genes that lean to one end.

    Args:
        space: Where to sample.
        count: How many are drawn; each comes back once.
        rng: Source of randomness.

    Returns:
        Distinct architectures, the smallest and the largest first.
    """
    most = space.cardinalities - 1
    uniform = rng.integers(0, space.cardinalities, (count - count // 2, space.dimensions))
    leaning = rng.binomial(most, rng.random((count // 2, 1)), (count // 2, space.dimensions))
    drawn = (space.decode(genes) for genes in np.concatenate([uniform, leaning]).astype(np.int64))
    return list(dict.fromkeys([space.smallest, space.largest, *drawn]))


def _walk_to(
    space: SearchSpace,
    cost: Callable[[Architecture], float],
    target: float,
    tolerance: float,
    rng: np.random.Generator,
) -> Architecture:
    """Start at random and take single-gene moves that come closer to `target`."""
    # A random tilt lets walks towards the ends of the range start near them.
    tilt = rng.random()
    genes = rng.binomial(space.cardinalities - 1, tilt).astype(np.int64)
    if rng.random() < 0.5:
        genes = rng.integers(0, space.cardinalities)
    best = space.decode(genes)
    gap = abs(cost(best) - target)
    for _ in range(16):
        for column in rng.permutation(space.dimensions):
            if gap <= tolerance:
                return best
            if space.cardinalities[column] == 1:
                continue
            moved = genes.copy()
            moved[column] = rng.integers(0, space.cardinalities[column])
            arch = space.decode(moved)
            moved_gap = abs(cost(arch) - target)
            if moved_gap < gap:
                genes, best, gap = moved, arch, moved_gap
    return best


def _unseen(
    space: SearchSpace, found: dict[Architecture, None], rng: np.random.Generator
) -> Architecture:
    """An architecture that is not in `found`: at random, or by going through a small space."""
    for _ in range(1000):
        arch = space.sample(rng)
        if arch not in found:
            return arch
    return next(arch for arch in space if arch not in found)
