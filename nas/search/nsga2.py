"""NSGA-II over choice indices, from pymoo's operators (Deb et al., 2002, 10.1109/4235.996017)."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from nas.search.candidates import Candidates
from nas.search.initial import initial_population
from nas.search.problem import Floats, Genes, Problem
from nas.search.variation import mutate
from search_spaces import Architecture


class NSGA2:
    """Non-dominated sorting, crowding distance, feasibility first.

    The parts that decide who survives and who mates are pymoo's. Genes are crossed over uniformly
    and one of them mutates on average: on spaces of 28 and 30 genes that was as good as rounded
    SBX and polynomial mutation, or as any of nine other pairs, and it needs no rounding. Offspring
    that was seen before is replaced at once, so a batch is short only at the end of the space.
    See `AlgorithmFactory` for the arguments.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
    ) -> None:
        self._space = problem.space
        self._problem = problem
        self._candidates = candidates
        self._rng = rng
        self._size = population
        self.batch = max(1, population // 3)
        self.expected_gain = None
        self._queue = initial_population(problem, candidates, population, rng, initial)
        self._parents: Any = None

    def ask(self, count: int) -> list[Architecture]:
        """The initial population, then offspring; see `Algorithm.ask`."""
        if self._queue:
            batch, self._queue = self._queue[:count], self._queue[count:]
            return batch
        if self._parents is None:
            return self._candidates.fill(count)
        parents: Genes = self._parents.get("X").astype(np.int64)
        batch = self._candidates.admit(self._offspring(parents, count), count)
        if len(batch) < count:
            batch += self._candidates.fill(count - len(batch), near=parents)
        return batch

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Let the best of parents and offspring survive; see `Algorithm.tell`."""
        # pymoo takes half a second to import, which --help should not pay.
        from pymoo.core.population import Population
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        if len(architectures) == 0:
            return
        offspring = Population.new(
            X=np.array([self._space.encode(arch) for arch in architectures]),
            F=values,
            G=self._problem.violation(values)[:, None],
        )
        everyone = (
            offspring if self._parents is None else Population.merge(self._parents, offspring)
        )
        problem = PymooProblem(n_var=self._space.dimensions, n_obj=values.shape[1], n_ieq_constr=1)
        self._parents = RankAndCrowding().do(
            problem, everyone, n_survive=self._size, random_state=self._rng
        )

    def _offspring(self, parents: Genes, count: int) -> Genes:
        """Children of tournament winners, shape `(count, d)`, not canonical."""
        from pymoo.algorithms.moo.nsga2 import binary_tournament
        from pymoo.operators.selection.tournament import TournamentSelection

        pairs = TournamentSelection(func_comp=binary_tournament).do(
            None,
            self._parents,
            n_select=count,
            n_parents=2,
            to_pop=False,
            random_state=self._rng,
            algorithm=SimpleNamespace(
                tournament_type="comp_by_dom_and_crowding", random_state=self._rng
            ),
        )
        first, second = parents[pairs[:, 0]], parents[pairs[:, 1]]
        children = np.where(self._rng.random(first.shape) < 0.5, first, second)
        return mutate(children, self._space, self._rng)
