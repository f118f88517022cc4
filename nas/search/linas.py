"""LINAS, the predictor loop of DyNAS-T (arXiv:2205.10358): what our own search is measured against.

As in the paper: a population of random architectures is evaluated; a predictor per objective is
fitted on one-hot genes, Ridge or an RBF support vector machine, whichever has the smaller error in
cross-validation; NSGA-II runs for many generations on the predictions; its best are evaluated next.
In its favour, an architecture is never evaluated twice: the next ones are the best unseen of all
that NSGA-II met, by predicted rank and crowding distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas.search.candidates import Candidates
from nas.search.evolution import random_pairs, winners
from nas.search.one_thread import one_thread
from nas.search.pareto import Indices, non_dominated
from nas.search.problem import Floats, Genes, Problem
from nas.search.variation import canonical, mutate
from search_spaces import Architecture

INNER_EVALUATIONS = 10_000
"""Predictions of one inner NSGA-II; DyNAS-T takes 5000 to 20,000, depending on the space."""
CROSSOVER = 0.9
"""Share of children with two parents, as in DyNAS-T."""


class Linas:
    """Random population, then rounds of predictor and NSGA-II; see `AlgorithmFactory`.

    All objectives are predicted, cheap ones too: as published it knows nothing at no cost.
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
        self._problem = problem
        self._space = problem.space
        self._candidates = candidates
        self._rng = rng
        self._size = self.batch = population
        self.expected_gain = None
        given = [self._space.encode(self._space.architecture(arch)) for arch in initial]
        self._queue = candidates.admit(given, len(given), repair=False)
        missing = population - len(self._queue) - candidates.known
        self._queue += candidates.fill(max(0, missing))
        self._genes: list[Genes] = []
        self._values: list[Floats] = []
        self._choices: list[Any] = []

    def ask(self, count: int) -> list[Architecture]:
        """What is left of the population, else of the next one; see `Algorithm.ask`."""
        if not self._queue:
            with one_thread():
                self._queue = self._next_population()
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Remember; predictors are fitted when the population is used up."""
        if len(architectures):
            self._genes.append(self._space.encode_all(architectures))
            self._values.append(values)

    def _next_population(self) -> list[Architecture]:
        found: list[Architecture] = []
        if self._genes:
            from nas.search.ridge_or_svm import OneHot, RidgeOrSvm  # scikit-learn takes a second

            genes, values = np.vstack(self._genes), np.vstack(self._values)
            features = OneHot(self._space, genes)
            encoded_all = features(genes)
            if not self._choices:
                self._choices = [RidgeOrSvm() for _ in values.T]
            predictors = [
                choice.fit(encoded_all, column)
                for choice, column in zip(self._choices, values.T, strict=True)
            ]

            def predict(rows: Genes) -> Floats:
                encoded = features(rows)
                return np.stack([predictor(encoded) for predictor in predictors], axis=1)

            met = self._evolve(predict)
            for front in _best_first(met, predict(met), self._problem, self._size):
                found += self._candidates.admit(met[front], self._size - len(found))
                if len(found) == self._size:
                    break
        return found + self._candidates.fill(self._size - len(found))

    def _evolve(self, predict: Callable[[Genes], Floats]) -> Genes:
        """All distinct genes that an NSGA-II on predictions meets, shape `(n, d)`, canonical."""
        space, size = self._space, self._size
        parents = canonical(
            self._space, self._rng.integers(0, space.cardinalities, size=(size, space.dimensions))
        )
        values, met = predict(parents), [parents]
        keys = survival(values, self._problem.violation(values), size)[1]
        for _ in range(INNER_EVALUATIONS // size - 1):
            mates = winners(random_pairs(len(parents), 2 * size, self._rng), keys, self._rng)
            first, second = parents[mates[:size]], parents[mates[size:]]
            crossed = self._rng.random((size, 1)) < CROSSOVER
            from_first = (self._rng.random(first.shape) < 0.5) | ~crossed
            children = mutate(np.where(from_first, first, second), space, self._rng)
            everyone = np.vstack([parents, canonical(self._space, children)])
            # Twins are left out, as in pymoo's NSGA-II.
            kept = np.sort(np.unique(everyone, axis=0, return_index=True)[1])
            children = everyone[kept[kept >= len(parents)]]
            if len(children) == 0:
                continue
            met.append(children)
            everyone = np.vstack([parents, children])
            values = np.vstack([values, predict(children)])
            order, keys = survival(values, self._problem.violation(values), size)
            parents, values = everyone[order], values[order]
        return np.unique(np.vstack(met), axis=0)


def survival(values: Floats, violation: Floats, size: int) -> tuple[Indices, list[Floats]]:
    """Survivors of NSGA-II: feasible first, then by rank and crowding distance.

    Args:
        values: Objectives, `(n, m)`.
        violation: Sum of violations, 0 where feasible, `(n,)`.
        size: How many survive.

    Returns:
        Their indices, best first, `(s,)`; and what tournaments between them go by, each `(s,)`.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    rank, crowding = np.zeros(len(values)), np.zeros(len(values))
    feasible = np.flatnonzero(violation == 0)
    if len(feasible):
        rank[feasible] = np.inf
        fronts = NonDominatedSorting().do(values[feasible], n_stop_if_ranked=size)
        for level, front in enumerate(fronts):
            rank[feasible[front]] = level
            crowding[feasible[front]] = calc_crowding_distance(values[feasible[front]])
    order = np.lexsort((-crowding, rank, violation))[:size]
    return order, [violation[order], rank[order], -crowding[order]]


def _best_first(met: Genes, values: Floats, problem: Problem, count: int) -> list[Indices]:
    """Predicted fronts, best first, each in order of crowding distance; about `count` and more."""
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

    violation = problem.violation(values)
    left = np.flatnonzero(violation == 0)
    fronts: list[Indices] = []
    # Several times the count, since some of them were seen before.
    while len(left) and sum(map(len, fronts)) < 20 * count:
        front = left[non_dominated(values[left])]
        order = np.argsort(-calc_crowding_distance(values[front]), kind="stable")
        fronts.append(front[order])
        left = np.setdiff1d(left, front)
    broken = np.flatnonzero(violation > 0)
    fronts.append(broken[np.argsort(violation[broken], kind="stable")][: 20 * count])
    return fronts
