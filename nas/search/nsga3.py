"""NSGA-III and U-NSGA-III: niches around reference directions, for many objectives.

Deb and Jain, 2014, 10.1109/TEVC.2013.2281535; Seada and Deb, 2016, 10.1109/TEVC.2015.2459718.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nas.search.evolution import (
    bounded_problem,
    indices_of,
    individuals,
    random_pairs,
    winners,
)
from nas.search.pareto import Indices
from nas.search.problem import Floats


class ReferenceDirectionSelection:
    """Feasibility, rank, then the emptiest niche, from pymoo. See `SelectionFactory`.

    Args:
        unified: Mate by rank and distance within a niche, as U-NSGA-III does, which helps with
            few objectives; otherwise at random among the feasible.
    """

    def __init__(
        self, *, size: int, objectives: int, rng: np.random.Generator, unified: bool
    ) -> None:
        from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival

        self._size = size
        self._problem = bounded_problem(objectives)
        self._rng = rng
        self._unified = unified
        self._survival = ReferenceDirectionSurvival(reference_directions(objectives, size))
        self._population: Any = None

    def survive(self, values: Floats, violation: Floats, new: Indices) -> None:
        """See `Selection.survive`."""
        from pymoo.core.population import Population

        everyone = individuals(new, values, violation)
        if self._population is not None:
            everyone = Population.merge(self._population, everyone)
        with warnings.catch_warnings():  # pymoo changes the filters for good
            self._population = self._survival.do(
                self._problem, everyone, n_survive=self._size, random_state=self._rng
            )

    @property
    def living(self) -> Indices:
        """See `Selection.living`."""
        return indices_of(self._population)

    def pairs(self, count: int) -> Indices:
        """Tournaments by feasibility; with `unified` then by rank and distance in one niche."""
        population = self._population
        pairs = random_pairs(len(population), 2 * count, self._rng)
        violation = np.asarray(population.get("CV"), dtype=np.float64)[:, 0]
        keys = [violation]
        if self._unified:
            rank, niche, distance = (
                np.array([np.nan if v is None else float(v) for v in population.get(name)])
                for name in ("rank", "niche", "dist_to_niche")
            )
            chosen = winners(pairs, keys, self._rng)
            rivals = (niche[pairs[:, 0]] == niche[pairs[:, 1]]) & (violation[pairs] == 0).all(1)
            chosen[rivals] = winners(pairs[rivals], [rank, distance], self._rng)
        else:
            chosen = winners(pairs, keys, self._rng)
        return self.living[chosen].reshape(count, 2)


def reference_directions(objectives: int, size: int) -> Floats:
    """Evenly spread directions (Das and Dennis, 1998, 10.1137/S1052623496307510).

    Args:
        objectives: Number of objectives, m.
        size: At most so many, but at least one for each objective.

    Returns:
        Shape `(r, m)`; rows add up to 1.
    """
    from pymoo.util.reference_direction import das_dennis, get_number_of_uniform_points

    partitions = 1
    while objectives > 1 and get_number_of_uniform_points(partitions + 1, objectives) <= size:
        partitions += 1
    return np.asarray(das_dennis(partitions, objectives), dtype=np.float64)
