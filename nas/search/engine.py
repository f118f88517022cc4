"""The search loop: asks an algorithm, evaluates, tells, and keeps the record."""

from collections.abc import Callable, Mapping, Sequence

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
    known: Mapping[Architecture, Sequence[float]] | None = None,
    min_gain: float = 0.0,
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
        batch: Architectures per call of `evaluate` at most; None lets the algorithm choose.
        known: Evaluations of earlier searches: what `evaluate` gave, by architecture. They are part
            of the result, cost no budget and are not asked for. A resumed search is the same only
            if it is given the same ones in the same order.
        min_gain: Stop when a batch is expected to raise the hypervolume by less than this share for
            each of its evaluations; the batch is not evaluated. 0 never stops so. Algorithms
            without expectations (see `Algorithm.expected_gain`) go on.

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
    if not min_gain >= 0:
        raise UserError(f"min_gain {min_gain} is below 0; give a share such as 0.0001, or 0")
    if batch is not None:
        _check_at_least("batch", batch, 1)
    start = algorithm_named(algorithm)
    problem = _problem(space, cheap, budget, constraints, objective_names)
    anchor = None
    if cheap is not None and problem.cheap_constraints:
        anchor = nearest_feasible(
            space, cheap, problem.cheap_constraints, seed, problem.cheap_names
        )
    record = _Record(problem)
    rng = np.random.default_rng(seed)
    candidates = Candidates(problem, rng, anchor)
    if known:
        record.add_known(known)
        candidates.leave_out(record.architectures)
    searcher = start(
        problem, candidates=candidates, rng=rng, population=population, initial=initial
    )
    if known:
        searcher.tell(tuple(record.architectures), record.values)
    while record.evaluated < budget:
        asked = searcher.ask(min(batch or searcher.batch, budget - record.evaluated))
        if not asked:
            break
        gain = searcher.expected_gain
        if gain is not None and gain < min_gain * len(asked):
            break
        record.expect(gain)
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
    """The evaluations so far, those known before the search first."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known = 0
        self.architectures: list[Architecture] = []
        self._seen: set[Architecture] = set()
        self._rows: list[Floats] = []
        self._batches: list[int] = []
        self._expected: list[float | None] = []
        names = problem.objective_names
        self._width = None if names is None else len(names) - problem.cheap_width

    @property
    def evaluated(self) -> int:
        """Number of evaluations of this search."""
        return len(self.architectures) - self._known

    @property
    def values(self) -> Floats:
        """All columns of all so far, shape `(n, m + k)`."""
        width = (self._width or 0) + self._problem.cheap_width
        return np.vstack(self._rows) if self._rows else np.zeros((0, width))

    def add_known(self, known: Mapping[Architecture, Sequence[float]]) -> None:
        """Begin with what is known.

        Raises:
            UserError: An architecture is not of the space, or the values are no finite numbers.
        """
        space = self._problem.space
        canonical = [space.architecture(arch) for arch in known]
        first = {arch: row for row, arch in reversed(list(enumerate(canonical)))}
        rows = sorted(first.values())
        costly = [list(values) for values in known.values()]
        self._add([canonical[row] for row in rows], [costly[row] for row in rows], "known")
        self._known = len(rows)

    def expect(self, gain: float | None) -> None:
        """Keep what the next batch is expected to add."""
        self._expected.append(gain)

    def add(self, asked: Sequence[Architecture], costly: npt.ArrayLike) -> Floats:
        """Check and keep the values of a batch; all columns, shape `(n, m + k)`."""
        if len(set(asked)) != len(asked) or not self._seen.isdisjoint(asked):
            raise RuntimeError("the algorithm asked about an architecture twice")
        values = self._add(asked, costly, "evaluate")
        self._batches.append(len(self.architectures))
        return values

    def _add(self, asked: Sequence[Architecture], costly: npt.ArrayLike, source: str) -> Floats:
        evaluated = checked_values(costly, asked, self._width, source)
        self._width = evaluated.shape[1]
        values = np.hstack([evaluated, self._problem.cheap_values(asked)])
        self._seen.update(asked)
        self.architectures += asked
        self._rows.append(values)
        return values

    def result(self) -> SearchResult:
        """All so far."""
        values = self.values
        front = feasible_front(values, self._problem.violation(values))
        values.flags.writeable = False
        front.flags.writeable = False
        return SearchResult(
            architectures=tuple(self.architectures),
            values=values,
            front=front,
            objective_names=self._problem.objective_names,
            constraints=self._problem.constraints,
            known=self._known,
            batches=tuple(self._batches),
            expected_gains=tuple(self._expected),
        )
