"""Does it pay to look at a part of the validation split first?

Searches with and without a lower fidelity, on the digits and text supernets of the search
benchmark, with the cheap objectives declared, as `nas search` does. A look at a share of the split
costs that share of a full evaluation, whether the architecture is promoted or not.

First, what a look knows that the search does not: after n evaluations of `guided`, the next 20 as
its predictor expects them, and as their looks do (corrected as in `nas.search.fidelity`); root of
the mean squared error of both, median over the seeds.

Then hypervolume after a given cost (see `benchmarks.search`), median over the seeds. Only full
evaluations count. `nested` is what it would be if a promoted architecture were judged only on the
rest of the split, so that its look cost nothing. The last table is the same after the time that so
many full evaluations take, with the times of both measured here, alternately, on one thread; the
engine's own time is left out.

Subnets are evaluated once and kept, so a second call takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import table, write_results
from benchmarks.search_problems import Reference, SearchProblem, open_problem, open_reference
from benchmarks.search_problems.stored_supernet import SPLIT, StoredSupernet
from benchmarks.search_problems.transformers import supernet_of
from nas.search import Fidelity, search
from nas.search.fidelity import LookBias
from nas.stages.supernet import evaluate
from predictors.quality import QualityPredictor
from search_spaces import Architecture

Floats = NDArray[np.float64]

COSTS = (25, 50, 100, 200, 400)
COUNTS = (20, 40, 80, 120)
NEXT = 20
TIMED = 40


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a search evaluated, call by call: how many at which share of the split."""

    calls: list[tuple[float, int]]
    values: Floats
    """Of those at share 1, in order, `(n, m + k)`."""

    @property
    def promoted(self) -> float:
        """Full evaluations for each look."""
        looks = sum(count for share, count in self.calls if share < 1)
        return sum(count for share, count in self.calls if share == 1) / looks

    def volumes(
        self,
        reference: Reference,
        problem: SearchProblem,
        costs: Sequence[float],
        *,
        look: float | None = None,
        nested: bool = False,
    ) -> Floats:
        """Hypervolume after each of some costs, as a share of the best front's.

        Args:
            reference: What it is measured by.
            problem: The problem.
            costs: Costs, in full evaluations.
            look: Cost of a look; None is its share of the split.
            nested: Whether a full evaluation costs as much less as its look cost.
        """
        spent, ready = 0.0, []
        looked = any(share < 1 for share, _ in self.calls)
        for share, count in self.calls:
            price = share if share == 1 or look is None else look
            if share == 1 and nested and looked:
                price -= min(s for s, _ in self.calls)
            for _ in range(count):
                spent += price
                if share == 1:
                    ready.append(spent)
        counts = [int(np.searchsorted(ready, cost + 1e-9, side="right")) for cost in costs]
        return np.array([reference.hypervolume(problem, self.values[:n]) for n in counts])


def run(
    problem: SearchProblem,
    net: StoredSupernet,
    algorithm: str,
    shares: Sequence[float],
    budget: int,
    seed: int,
) -> Log:
    """One search, with looks at these shares of the split."""
    calls: list[tuple[float, int]] = []
    quality = problem.names[:1]

    def at(share: float) -> Any:
        def judged(architectures: Sequence[Architecture]) -> Floats:
            calls.append((share, len(architectures)))
            return net.metrics(architectures, quality, share)

        return judged

    result = search(
        problem.space,
        at(1.0),
        problem.cheap,
        budget=budget,
        algorithm=algorithm,
        seed=seed,
        fidelities=[Fidelity(evaluate=at(share), cost=share) for share in shares],
    )
    return Log(calls=calls, values=result.values)


def seconds(net: StoredSupernet, shares: Sequence[float]) -> dict[float, float]:
    """Median seconds of an evaluation at each share."""
    space, rng = net.space, np.random.default_rng(0)
    model, task = net.supernet.model, net.supernet.task
    times: dict[float, list[float]] = {share: [] for share in shares}
    for arch in [space.sample(rng) for _ in range(TIMED)]:
        for share in shares:
            begun_s = time.perf_counter()
            evaluate(model, task, arch, SPLIT, share)
            times[share].append(time.perf_counter() - begun_s)
    return {share: statistics.median(found) for share, found in times.items()}


def errors(
    problem: SearchProblem, net: StoredSupernet, share: float, counts: Sequence[int], seed: int
) -> Floats:
    """How far off predictor and looks are on the `NEXT` after each of `counts`, `(counts, 2)`."""
    result = search(
        problem.space, problem.evaluate, problem.cheap, budget=max(counts) + NEXT, seed=seed
    )
    genes = problem.space.encode_all(result.architectures)
    full, cheap = result.values[:, 0], result.values[:, 1:]
    looks = net.metrics(result.architectures, problem.names[:1], share)
    found = []
    for n in counts:
        rows = slice(n, n + NEXT)
        predictor = QualityPredictor(problem.space)
        predictor.fit(genes[:n], cheap[:n], full[:n])
        bias = LookBias()
        bias.learn(looks[:n], full[:n, None])
        guesses = (
            predictor.mean(predictor.inputs(genes[rows], cheap[rows])),
            bias.judge(looks[rows])[0][:, 0],
        )
        found.append([np.sqrt(((guess - full[rows]) ** 2).mean()) for guess in guesses])
    return np.array(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=["digits", "text"])
    parser.add_argument("--algorithms", nargs="+", default=["guided", "nsga2"])
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(argv)
    share, costs = options.share, [cost for cost in COSTS if cost <= options.budget]
    counts = [n for n in COUNTS if n + NEXT <= options.budget]
    results: dict[str, Any] = {}
    off, by_cost, by_time = [], [], []
    for name in options.problems:
        problem, reference, net = open_problem(name), open_reference(name), supernet_of(name)
        took = seconds(net, (share, 1.0))
        seeds = range(options.seeds)
        found = np.array([errors(problem, net, share, counts, seed) for seed in seeds])
        results[name] = {
            "seconds": {str(s): one for s, one in took.items()},
            "errors": found.tolist(),
        }
        for column, guess in enumerate(("predictor", "look")):
            middle = np.median(found[:, :, column], axis=0)
            off.append([name, guess, *(f"{one:.4f}" for one in middle)])
        for algorithm in options.algorithms:
            logs = {
                s: [run(problem, net, algorithm, s, options.budget, seed) for seed in seeds]
                for s in ((), (share,))
            }
            promoted = statistics.median(log.promoted for log in logs[(share,)])
            print(f"{name}, {algorithm}: {100 * promoted:.0f} % of what was looked at is promoted")
            ratio = took[share] / took[1.0]
            arms: dict[str, tuple[list[Log], dict[str, Any], list[list[str]]]] = {
                "full": (logs[()], {}, by_cost),
                "looks": (logs[(share,)], {}, by_cost),
                "looks, nested": (logs[(share,)], {"nested": True}, by_cost),
                "full by time": (logs[()], {}, by_time),
                "looks by time": (logs[(share,)], {"look": ratio}, by_time),
            }
            results[name][algorithm] = {"promoted": promoted}
            for arm, (some, how, rows) in arms.items():
                volumes = np.array([log.volumes(reference, problem, costs, **how) for log in some])
                results[name][algorithm][arm] = volumes.tolist()
                middle = np.median(volumes, axis=0)
                shown = [f"{100 * one:.2f}" for one in middle]
                rows.append([name, algorithm, arm.removesuffix(" by time"), *shown])
        times = ", ".join(f"{1000 * one:.1f} ms at {s:g}" for s, one in took.items())
        print(f"{name}: an evaluation takes {times} of the split")
    print(f"\nerror on the next {NEXT} after so many evaluations, share {share:g}")
    print(table(["problem", "guess", *map(str, counts)], off))
    print(f"\n% of the best-known hypervolume, by cost in full evaluations, share {share:g}")
    print(table(["problem", "algorithm", "search", *map(str, costs)], by_cost))
    print("\nthe same, by the time of so many full evaluations")
    print(table(["problem", "algorithm", "search", *map(str, costs)], by_time))
    print(f"\n{write_results('search_fidelities', {'share': share, 'problems': results})}")


if __name__ == "__main__":
    main()
