"""The first architectures of a search: what the caller knows, both ends, and all sizes between."""

from collections.abc import Sequence

import numpy as np

from nas.search.candidates import Candidates
from nas.search.problem import Genes, Problem
from nas.search.variation import stratified_levels, tilted_genes
from search_spaces import Architecture

_POOL = 12


def initial_population(
    problem: Problem,
    candidates: Candidates,
    count: int,
    rng: np.random.Generator,
    initial: Sequence[Architecture] = (),
) -> list[Architecture]:
    """Distinct architectures to begin with.

    Those of `initial` that meet the cheap bounds come first, all of them; then the smallest and
    the largest (moved into the bounds), then samples spread over size until there are `count`
    with those that are known already.
    Size is the first cheap column; without one, the mean level of the genes.

    Args:
        problem: Space, cheap columns, bounds.
        candidates: Where the search keeps what it has seen.
        count: Size of the population.
        rng: Source of randomness.
        initial: Architectures that the caller wants to see evaluated.

    Returns:
        At least `count` architectures, less those that are known, if the space has so many.
    """
    space = problem.space
    count = max(0, count - candidates.known)
    given = [space.encode(space.architecture(arch)) for arch in initial]
    found = candidates.admit(given, len(given), repair=False)
    ends = [space.encode(space.smallest), space.encode(space.largest)]
    found += candidates.admit(ends, max(0, min(len(ends), count - len(found))))
    missing = count - len(found)
    if missing > 0:
        found += candidates.admit(_spread(problem, missing, rng), missing)
    missing = count - len(found)
    if missing > 0:
        found += candidates.fill(missing, near=np.array([space.encode(arch) for arch in found]))
    return found


def _spread(problem: Problem, count: int, rng: np.random.Generator) -> Genes:
    """Genes spread over size, shape `(count, d)`, in random order of size."""
    space = problem.space
    if problem.cheap is None:
        return tilted_genes(stratified_levels(count, rng), space, rng)
    pool = tilted_genes(stratified_levels(_POOL * count, rng), space, rng)
    architectures = space.decode_all(pool)
    feasible = problem.cheap_violation(architectures) == 0
    if feasible.sum() < 2:
        return pool[:count]
    pool = pool[feasible]
    cost = problem.cheap_values([a for a, ok in zip(architectures, feasible, strict=True) if ok])
    size = cost[:, 0]
    targets = size.min() + (size.max() - size.min()) * stratified_levels(count, rng)
    free = np.ones(len(pool), dtype=np.bool_)
    chosen = []
    for target in targets[: len(pool)]:
        nearest = int(np.argmin(np.where(free, np.abs(size - target), np.inf)))
        free[nearest] = False
        chosen.append(nearest)
    return np.asarray(pool[chosen], dtype=np.int64)
