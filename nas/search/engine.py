"""The search loop: asks an algorithm, evaluates, tells, and keeps the record."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nas.search.candidates import Candidates
from nas.search.constraints import Constraint, column_of, parse_constraint
from nas.search.feasibility import nearest_feasible
from nas.search.fidelity import Climb, Fidelity, check_fidelities
from nas.search.problem import Evaluate, Problem
from nas.search.record import Record
from nas.search.registry import algorithm_named
from nas.search.result import SearchResult, Stop
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
    fidelities: Sequence[Fidelity] = (),
    max_s: float | None = None,
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
        fidelities: Cheaper evaluations, the cheapest first. Architectures are looked at with them,
            and those that may be on the front are promoted to the next and in the end to
            `evaluate`; see `nas.search.fidelity`. `budget` is then what all of that costs
            together, in full evaluations.
        max_s: Begin no batch after so many seconds of this call; the result is the beginning of the
            one without. A resumed search has this time again. None sets no limit.

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
    if max_s is not None and not max_s > 0:
        raise UserError(f"max_s {max_s} is not above 0; give seconds, or None for no limit")
    begun_s = time.monotonic()
    if batch is not None:
        _check_at_least("batch", batch, 1)
    check_fidelities(fidelities)
    start = algorithm_named(algorithm)
    most = int(budget / fidelities[0].cost) if fidelities else budget
    problem = _problem(space, cheap, most, constraints, objective_names)
    anchor = None
    if cheap is not None and problem.cheap_constraints:
        anchor = nearest_feasible(
            space, cheap, problem.cheap_constraints, seed, problem.cheap_names
        )
    record = Record(problem)
    climb = Climb(problem, evaluate, fidelities, record)
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
    stopped: Stop = "budget"
    while (count := climb.affordable(budget)) > 0:
        if max_s is not None and time.monotonic() - begun_s >= max_s:
            stopped = "time"
            break
        asked = searcher.ask(min(batch or searcher.batch, count))
        if not asked:
            climb.use_up(budget)
            stopped = "space"
            break
        gain = searcher.expected_gain
        if gain is not None and gain < min_gain * len(asked):
            stopped = "gain"
            break
        record.open_batch(asked, gain)
        searcher.tell(asked, climb(asked, budget))
        record.close_batch()
        if on_batch is not None:
            on_batch(record.result(climb.spent, climb.left_behind))
    return replace(record.result(climb.spent, climb.left_behind), stopped=stopped)


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
