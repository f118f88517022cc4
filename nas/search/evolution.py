"""What the evolutionary algorithms share: offspring of those that a selection lets mate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from nas.search.candidates import Candidates
from nas.search.initial import initial_population
from nas.search.pareto import Indices
from nas.search.problem import Floats, Genes, Problem
from nas.search.variation import mutate
from search_spaces import Architecture


class Selection(Protocol):
    """Who of the evaluated lives on, and who mates: what tells one algorithm from another.

    All indices are rows of everything that was evaluated so far.
    """

    def survive(self, values: Floats, violation: Floats, new: Indices) -> None:
        """Choose among those that lived and the new ones.

        Args:
            values: Objectives of everything, minimised, `(n, m)`.
            violation: Sum of violations, 0 where feasible, `(n,)`.
            new: Indices of those that were evaluated last.
        """

    @property
    def living(self) -> Indices:
        """Those that may mate, `(p,)`, at least one."""

    def pairs(self, count: int) -> Indices:
        """Parents of `count` children, `(count, 2)`."""


class SelectionFactory(Protocol):
    """Makes a selection once the number of objectives is known."""

    def __call__(self, *, size: int, objectives: int, rng: np.random.Generator) -> Selection:
        """Make a selection.

        Args:
            size: Size of the population.
            objectives: Number of columns of the values, m.
            rng: The only source of randomness.
        """


class Evolution:
    """An initial population spread over size, then children of those that a selection pairs.

    Genes are crossed over uniformly and one of them mutates on average: on spaces of 28 and 30
    genes that was as good as rounded SBX and polynomial mutation, or as any of nine other pairs,
    and it needs no rounding. Offspring that was seen before is replaced at once, so a batch is
    short only at the end of the space. See `AlgorithmFactory` for the other arguments.

    Args:
        selection: Makes the algorithm's selection.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
        selection: SelectionFactory,
    ) -> None:
        self._problem = problem
        self._candidates = candidates
        self._rng = rng
        self._size = population
        self.batch = max(1, population // 3)
        self.expected_gain = None
        self._make = selection
        self._selection: Selection | None = None
        self._queue = initial_population(problem, candidates, population, rng, initial)
        self._genes: Genes = np.zeros((0, problem.space.dimensions), dtype=np.int64)
        self._values = np.zeros((0, 0))
        self._violation = np.zeros(0)

    def ask(self, count: int) -> list[Architecture]:
        """The initial population, then offspring; see `Algorithm.ask`."""
        if self._queue:
            batch, self._queue = self._queue[:count], self._queue[count:]
            return batch
        if self._selection is None:
            return self._candidates.fill(count)
        batch = self._candidates.admit(self._offspring(self._selection, count), count)
        if len(batch) < count:
            near = self._genes[self._selection.living]
            batch += self._candidates.fill(count - len(batch), near=near)
        return batch

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Let the selection choose who lives on; see `Algorithm.tell`."""
        if len(architectures) == 0:
            return
        if self._selection is None:
            self._values = np.zeros((0, values.shape[1]))
            self._selection = self._make(size=self._size, objectives=values.shape[1], rng=self._rng)
        new = np.arange(len(self._genes), len(self._genes) + len(architectures), dtype=np.int64)
        genes = self._problem.space.encode_all(architectures)
        self._genes = np.vstack([self._genes, genes])
        self._values = np.vstack([self._values, values])
        self._violation = np.concatenate([self._violation, self._problem.violation(values)])
        self._selection.survive(self._values, self._violation, new)

    def _offspring(self, selection: Selection, count: int) -> Genes:
        """Children, shape `(count, d)`, not canonical."""
        pairs = selection.pairs(count)
        first, second = self._genes[pairs[:, 0]], self._genes[pairs[:, 1]]
        children = np.where(self._rng.random(first.shape) < 0.5, first, second)
        return mutate(children, self._problem.space, self._rng)


def individuals(indices: Indices, values: Floats, violation: Floats) -> Any:
    """A population as pymoo has them, whose X are the given rows of the values."""
    # pymoo takes half a second to import, which --help should not pay.
    from pymoo.core.population import Population

    return Population.new(
        X=np.asarray(indices, dtype=np.int64)[:, None],
        F=values[indices],
        G=violation[indices, None],
    )


def indices_of(population: Any) -> Indices:
    """The rows that a population of `individuals` stands for."""
    if len(population) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(population.get("X")[:, 0], dtype=np.int64)


def bounded_problem(objectives: int) -> Any:
    """What pymoo's selections want to know of a problem: that there are constraints."""
    from pymoo.core.problem import Problem as PymooProblem

    return PymooProblem(n_var=1, n_obj=objectives, n_ieq_constr=1)


def random_pairs(size: int, count: int, rng: np.random.Generator) -> Indices:
    """Pairs of places below `size`, `(count, 2)`, in which all places occur alike often."""
    rounds = max(1, -(-2 * count // size))
    places = np.concatenate([rng.permutation(size) for _ in range(rounds)])
    return places[: 2 * count].reshape(count, 2).astype(np.int64)


def winners(pairs: Indices, keys: Sequence[Floats], rng: np.random.Generator) -> Indices:
    """Winners of binary tournaments, `(n,)`.

    Args:
        pairs: Places, `(n, 2)`.
        keys: Of every place, smaller is better; the first that differs decides. NaN does not.
        rng: Tosses the coin where none does.
    """
    side = rng.integers(0, 2, size=len(pairs))
    undecided = np.ones(len(pairs), dtype=np.bool_)
    for key in keys:
        a, b = key[pairs[:, 0]], key[pairs[:, 1]]
        side = np.where(undecided & (a < b), 0, np.where(undecided & (b < a), 1, side))
        undecided &= ~((a < b) | (b < a))
    return np.asarray(pairs[np.arange(len(pairs)), side], dtype=np.int64)
