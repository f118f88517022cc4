"""The search loop: asks an algorithm, evaluates, tells, and keeps the record."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nas.search.candidates import Candidates
from nas.search.constraints import Constraint, column_of, parse_constraint
from nas.search.feasibility import nearest_feasible
from nas.search.problem import Evaluate, Floats, Problem, checked_values
from nas.search.registry import algorithm_named
from nas.search.result import SearchResult, feasible_front
from search_spaces import Architecture, SearchSpace
from search_spaces.errors import UserError

POPULATION = 30
"""Small on purpose: at 50 to 400 evaluations 30 did better than 40, at 800 hardly worse."""


def search(
    space: SearchSpace,
    evaluate: Evaluate,
    cheap: Evaluate | None = None,
    budget: int = 200,
    algorithm: str = "auto",
    seed: int = 0,
    initial: Sequence[Architecture] = (),
    constraints: Sequence[Constraint | str] = (),
    on_batch: Callable[[SearchResult], None] | None = None,
    objective_names: Sequence[str] | None = None,
    population: int = POPULATION,
    batch: int | None = None,
) -> SearchResult:
    """Search for the Pareto front with at most `budget` evaluations.

    The same arguments give the same architectures in the same order. An interrupted search is
    resumed by calling it again with an `evaluate` that answers what it knows from a store: the
    replay costs no evaluation, asks the same questions, and ends in the identical result.

    Args:
        space: Any discrete space.
        evaluate: Objectives that cost something, all minimised, `(n, m)` for n distinct
            architectures; never asked about one architecture twice. What it raises is passed on.
        cheap: Objectives known at no cost, `(n, k)`; may be called about very many architectures.
        budget: Number of distinct architectures given to `evaluate`; fewer if the space (or what
            lies within the cheap bounds) has no more.
        algorithm: `auto`, or a name of `nas.search.ALGORITHMS`.
        seed: Seed of all randomness, at least 0.
        initial: Architectures to evaluate first; those that break a cheap bound are left out.
        constraints: Bounds on any objective, as `Constraint` or as text (`latency_ms <= 5`).
            Bounds on cheap objectives hold for everything that is evaluated; the others are met
            first, before any objective counts.
        on_batch: Called with the result so far after every batch.
        objective_names: Names of the m + k columns; needed by bounds that say a name.
        population: Size of the initial population and of those that follow, at least 2.
        batch: Architectures per call of `evaluate` at most; None means a third of the population.

    Returns:
        Everything that was evaluated; `front` is empty if nothing meets the bounds (see
        `require_feasible`).

    Raises:
        NothingFeasibleError: No architecture is within the cheap bounds; nothing was evaluated.
        UserError: A wrong argument, or wrong values from `evaluate` or `cheap`.
    """
    _check_at_least("budget", budget, 1)
    _check_at_least("seed", seed, 0)
    _check_at_least("population", population, 2)
    step = max(1, population // 3) if batch is None else batch
    _check_at_least("batch", step, 1)
    start = algorithm_named(algorithm)
    problem = _problem(space, cheap, budget, constraints, objective_names)
    anchor = None
    if cheap is not None and problem.cheap_constraints:
        anchor = nearest_feasible(
            space, cheap, problem.cheap_constraints, seed, problem.cheap_names
        )
    rng = np.random.default_rng(seed)
    candidates = Candidates(problem, rng, anchor)
    searcher = start(
        problem, candidates=candidates, rng=rng, population=population, initial=initial
    )
    record = _Record(problem)
    while len(record) < budget:
        asked = searcher.ask(min(step, budget - len(record)))
        if not asked:
            break
        costly = evaluate(asked)
        values = record.add(asked, costly)
        searcher.tell(asked, values)
        if on_batch is not None:
            on_batch(record.result())
    return record.result()


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name} {value} is below {least}; give {name} of at least {least}")


def _problem(
    space: SearchSpace,
    cheap: Evaluate | None,
    budget: int,
    constraints: Sequence[Constraint | str],
    objective_names: Sequence[str] | None,
) -> Problem:
    names = None if objective_names is None else tuple(objective_names)
    if names is not None and len(set(names)) != len(names):
        raise UserError(f"objective names {', '.join(names)} are not distinct; name each once")
    if isinstance(constraints, str):
        constraints = (constraints,)
    for bound in constraints:
        if not isinstance(bound, Constraint | str):
            raise UserError(f"bound {bound!r} is neither text such as 'x <= 5' nor a Constraint")
    width = 0
    if cheap is not None:
        width = Problem(space=space, budget=1, cheap=cheap).cheap_values([space.smallest]).shape[1]
    if names is not None and len(names) <= width:
        raise UserError(
            f"{len(names)} objective names, but cheap alone gives {width} columns; name all "
            "objectives, evaluate's first"
        )
    if names is None and any(isinstance(bound, str) for bound in constraints):
        raise UserError("a bound given as text names an objective; give objective_names too")
    bounds = tuple(
        parse_constraint(bound, names or ()) if isinstance(bound, str) else bound
        for bound in constraints
    )
    for bound in bounds:
        if names is not None or isinstance(bound.objective, str):
            column_of(bound, len(names or ()), names)
    return Problem(
        space=space,
        budget=budget,
        cheap=cheap,
        cheap_width=width,
        constraints=bounds,
        objective_names=names,
    )


class _Record:
    """The evaluations so far."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._architectures: list[Architecture] = []
        self._seen: set[Architecture] = set()
        self._rows: list[Floats] = []
        self._batches: list[int] = []
        names = problem.objective_names
        self._width = None if names is None else len(names) - problem.cheap_width

    def __len__(self) -> int:
        return len(self._architectures)

    def add(self, asked: Sequence[Architecture], costly: npt.ArrayLike) -> Floats:
        """Check and keep the values of a batch; all columns, shape `(n, m + k)`."""
        if len(set(asked)) != len(asked) or not self._seen.isdisjoint(asked):
            raise RuntimeError("the algorithm asked about an architecture twice")
        evaluated = checked_values(costly, asked, self._width, "evaluate")
        self._width = evaluated.shape[1]
        values = np.hstack([evaluated, self._problem.cheap_values(asked)])
        self._seen.update(asked)
        self._architectures += asked
        self._rows.append(values)
        self._batches.append(len(self))
        return values

    def result(self) -> SearchResult:
        """All so far."""
        width = (self._width or 0) + self._problem.cheap_width
        values = np.vstack(self._rows) if self._rows else np.zeros((0, width))
        front = feasible_front(values, self._problem.violation(values))
        values.flags.writeable = False
        front.flags.writeable = False
        return SearchResult(
            architectures=tuple(self._architectures),
            values=values,
            front=front,
            objective_names=self._problem.objective_names,
            constraints=self._problem.constraints,
            batches=tuple(self._batches),
        )
