"""NSGA-II: non-dominated sorting and crowding (Deb et al., 2002, 10.1109/4235.996017)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from nas.search.evolution import bounded_problem, indices_of, individuals
from nas.search.pareto import Indices
from nas.search.problem import Floats


class RankAndCrowdingSelection:
    """Feasibility, rank and crowding distance, from pymoo. See `SelectionFactory`."""

    def __init__(self, *, size: int, objectives: int, rng: np.random.Generator) -> None:
        self._size = size
        self._problem = bounded_problem(objectives)
        self._rng = rng
        self._population: Any = None

    def survive(self, values: Floats, violation: Floats, new: Indices) -> None:
        """See `Selection.survive`."""
        from pymoo.core.population import Population
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        everyone = individuals(new, values, violation)
        if self._population is not None:
            everyone = Population.merge(self._population, everyone)
        self._population = RankAndCrowding().do(
            self._problem, everyone, n_survive=self._size, random_state=self._rng
        )

    @property
    def living(self) -> Indices:
        """See `Selection.living`."""
        return indices_of(self._population)

    def pairs(self, count: int) -> Indices:
        """Tournaments by feasibility, dominance, then crowding distance."""
        from pymoo.algorithms.moo.nsga2 import binary_tournament
        from pymoo.operators.selection.tournament import TournamentSelection

        places = TournamentSelection(func_comp=binary_tournament).do(
            None,
            self._population,
            n_select=count,
            n_parents=2,
            to_pop=False,
            random_state=self._rng,
            algorithm=SimpleNamespace(
                tournament_type="comp_by_dom_and_crowding", random_state=self._rng
            ),
        )
        return self.living[np.asarray(places, dtype=np.int64)]
