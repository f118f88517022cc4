"""Search the trained supernet of a run for the Pareto front on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.atomic import write_json
from nas.config import COSTS, QUALITIES
from nas.progress import progress
from nas.run import Run
from nas.search import (
    Fidelity,
    nearest_feasible,
    non_dominated,
    parse_constraints,
    require_feasible,
    search,
    select_front,
)
from nas.search.result import SearchResult
from nas.stages.cluster import SPLIT, executor_of
from nas.stages.importance import describe_importance
from nas.stages.known_table import load_predictors
from nas.stages.policies import block_bytes, block_latencies, proposals, without_slow_blocks
from nas.stages.resources import load_resources, wanted_resources
from nas.stages.search_start import SearchStart
from nas.stages.supernet import TrainedSupernet, open_supernet
from predictors.blocks import BlockCounts
from predictors.protocol import ArchitecturePredictor
from search_spaces import Architecture, TransformerSpace, UserError


class Objectives:
    """The columns of a search: what is evaluated, then what is known at no cost.

    Args:
        run: Its configuration names objectives and bounds.
        space: The search space.
        predictors: Latency by workload.
    """

    def __init__(
        self, run: Run, space: TransformerSpace, predictors: Mapping[str, ArchitecturePredictor]
    ) -> None:
        settings = run.config.search
        known = run.config.objectives
        bounded = [str(bound.objective) for bound in parse_constraints(settings.bounds, known)]
        qualities = QUALITIES[run.config.task.kind]
        wanted = [*settings.objectives, *bounded]
        self.names = settings.objectives
        self.evaluated = tuple(dict.fromkeys(name for name in wanted if name in qualities))
        if not self.evaluated:
            # Even a search over costs alone reports a quality.
            self.evaluated = qualities[:1]
        self.cheap = tuple(dict.fromkeys(name for name in wanted if name not in qualities))
        self.space = space
        self.predictors = predictors
        self.resources = load_resources(run, space)
        # KV cache and MACs are those of the workload that asks the most.
        self.workload = max(run.config.calls.values(), key=lambda call: call.tokens)
        self._counts = BlockCounts(space)
        self._block_costs = [space.block_cost(b, self.workload) for b in self._counts.blocks]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.evaluated, *self.cheap)

    def cheap_values(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Latencies, resources and analytic costs, shape `(n, k)`."""
        columns = [self.cost(architectures, name) for name in self.cheap]
        return np.stack(columns, axis=1) if columns else np.zeros((len(architectures), 0))

    def cost(self, architectures: Sequence[Architecture], name: str) -> NDArray[np.float64]:
        """One latency, resource or analytic cost, shape `(n,)`."""
        workload = name.removesuffix("_ms")
        if workload in self.predictors and workload != name:
            return self.predictors[workload].predict(architectures)[0]
        if name in self.resources:
            return self.resources[name].predict(architectures)
        costs = np.array([float(getattr(cost, name)) for cost in self._block_costs])
        values: NDArray[np.float64] = self._counts(architectures) @ costs
        return values

    def front(self, result: SearchResult) -> NDArray[np.int64]:
        """Evaluations within all bounds that no other such one dominates in the objectives."""
        feasible = np.flatnonzero(result.violation() == 0)
        values = self.select(result.values)[feasible]
        chosen: NDArray[np.int64] = feasible[non_dominated(values)]
        return chosen

    def select(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The columns that are objectives, in the order of the configuration."""
        return values[:, [self.columns.index(name) for name in self.names]]


def refuse_impossible(run: Run, space: TransformerSpace, *, measured: bool) -> None:
    """Check the bounds on what is known without weights, before anything is trained.

    Args:
        run: Its configuration names the bounds.
        space: The search space.
        measured: Whether the latency table is there, so that latencies are known too.

    Raises:
        NothingFeasibleError: No architecture is within the bounds.
    """
    predictors = load_predictors(run, space) if measured else {}
    known = [*COSTS, *(f"{workload}_ms" for workload in predictors)]
    if predictors:
        known += wanted_resources(run.config)
    bounds = [
        bound
        for bound in parse_constraints(run.config.search.bounds, run.config.objectives)
        if bound.objective in known
    ]
    if not bounds:
        return
    objectives = Objectives(run, space, predictors)
    names = [str(bound.objective) for bound in bounds]

    def values(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.stack([objectives.cost(architectures, name) for name in names], axis=1)

    nearest_feasible(space, values, bounds, run.config.seed, names)


def search_front(run: Run, supernet: TrainedSupernet | None = None) -> dict[str, Any]:
    """Search; qualities that the store holds are not evaluated again.

    What the store holds when a search is started for the first time, from other devices or other
    settings, is known to it from the beginning and costs no budget. Leaves `search.json`, and
    until then after each batch `search-unfinished.json`, for reports.
    Interrupted and started again, it knows the same, asks the same questions, gets the answers
    from the store, and ends with the identical front.

    Raises:
        NothingFeasibleError: No architecture is within the bounds.
        UserError: There is no supernet or no table, or they are of another space.
    """
    supernet = supernet or open_supernet(run)
    settings = run.config.search
    predictors = load_predictors(run, supernet.space)
    space = without_slow_blocks(supernet.space, predictors)
    objectives = Objectives(run, space, predictors)
    uniform = space.uniform(5)
    costs = block_latencies(predictors)
    if "size_bytes" in objectives.cheap:
        costs.append(block_bytes(space, objectives.workload))
    before = run.store.count()
    start = SearchStart(run, supernet.stored_as, search_identity(run, objectives))

    with (
        executor_of(run, supernet) as executor,
        progress(run.console, "Searching", settings.budget) as update,
    ):

        def evaluate(
            architectures: Sequence[Architecture], share: float = 1.0
        ) -> NDArray[np.float64]:
            start.keep()
            found = supernet.metrics(architectures, SPLIT, share, executor)
            return np.array([[each[name] for name in objectives.evaluated] for each in found])

        def report(result: SearchResult) -> None:
            front = objectives.front(result)
            update(result.spent, _progress(result, len(front), executor.workers))
            found = _found(run, supernet.hash, objectives, result, front)
            write_json(run.directory.search_unfinished, {**found, "finished": False})

        result = search(
            space,
            evaluate,
            cheap=objectives.cheap_values if objectives.cheap else None,
            budget=settings.budget,
            algorithm=settings.algorithm,
            seed=run.config.seed,
            initial=[*uniform, *proposals(supernet, space, uniform, costs)],
            constraints=settings.bounds,
            on_batch=report,
            objective_names=objectives.columns,
            population=settings.population,
            known=start.known(objectives.evaluated, space),
            min_gain=settings.min_gain,
            max_s=settings.max_seconds,
            fidelities=[
                Fidelity(evaluate=partial(evaluate, share=share), cost=share)
                for share in settings.fidelities
            ],
        )
        require_feasible(result)
        references = np.hstack([evaluate(uniform), objectives.cheap_values(uniform)])
    front = objectives.front(result)
    reference_values = objectives.select(references)
    names = ["smallest", *(f"uniform-{i}" for i in range(1, len(uniform) - 1)), "largest"]
    write_json(
        run.directory.search,
        {
            **_found(run, supernet.hash, objectives, result, front),
            "importance": describe_importance(
                space,
                result,
                objectives.evaluated,
                objectives.cheap,
                objectives.cheap_values,
                run.config.seed,
            ),
            "references": [
                {"name": name, "architecture": dict(arch), "values": row}
                for name, arch, row in zip(
                    names[-len(uniform) :], uniform, reference_values.tolist(), strict=True
                )
            ],
        },
    )
    run.directory.search_unfinished.unlink(missing_ok=True)
    new = run.store.count() - before
    return {
        "evaluated": len(result.architectures),
        "known_before": result.known,
        "evaluated_now": new,
        "stopped_by": result.stopped,
        "front": len(front),
    }


def _found(
    run: Run,
    supernet: str,
    objectives: Objectives,
    result: SearchResult,
    front: NDArray[np.int64],
) -> dict[str, Any]:
    """What a search has found so far, as it stands in its file."""
    settings = run.config.search
    values = objectives.select(result.values)
    return {
        "schema": 1,
        "device": run.device,
        "supernet": supernet,
        "objectives": list(objectives.names),
        "bounds": list(settings.bounds),
        "algorithm": settings.algorithm,
        "budget": settings.budget,
        "seed": run.config.seed,
        "known": result.known,
        "fidelities": list(settings.fidelities),
        "left_behind": len(result.left_behind),
        "evaluated": [
            {"architecture": dict(arch), "values": row}
            for arch, row in zip(result.architectures, values.tolist(), strict=True)
        ],
        "front": front.tolist(),
        "selected": select_front(values, front, settings.front_size).tolist(),
    }


def _progress(result: SearchResult, front: int, workers: int) -> str:
    """How far a search is, in words."""
    evaluated = len(result.architectures) - result.known
    words = [f"{evaluated} subnets, {front} on the front"]
    if result.left_behind:
        words.append(f"{len(result.left_behind)} left behind")
    words.append(f"hypervolume {result.hypervolume():.4f}")
    gain = result.expected_gains[-1] if result.expected_gains else None
    if gain is not None:
        words.append(f"last batch expected to add {100 * gain:.2g} %")
    if workers > 1:
        words.append(f"{workers} workers")
    return ", ".join(words)


def search_identity(run: Run, objectives: Objectives) -> dict[str, Any]:
    """What tells one search from another; more budget only makes it longer."""
    settings = run.config.search
    # Left out where there are none: searches that began before there were any go on.
    fidelities = {"fidelities": list(settings.fidelities)} if settings.fidelities else {}
    # One supernet is searched with several lists of schemes, and without any.
    space = {"space": objectives.space.digest} if objectives.space.precision else {}
    return {
        "objectives": list(objectives.columns),
        "bounds": list(settings.bounds),
        "algorithm": settings.algorithm,
        "population": settings.population,
        "seed": run.config.seed,
        **space,
        **fidelities,
    }


def check_search(run: Run, data: dict[str, Any], supernet_hash: str) -> None:
    """Refuse a `search.json` of another supernet.

    Raises:
        UserError: It is of another supernet.
    """
    if data.get("supernet") != supernet_hash:
        raise UserError(
            f"{run.directory.search} is of another supernet than "
            f"{run.directory.supernet}; run `nas search` again"
        )
