"""Where a search would stop by its expected gain, and what it would have missed.

One search for each problem and seed, with all of the budget and the cheap objectives declared, as
`nas search` does. A bound on the gain (`min_gain`) stops before a batch that is expected to add
less for each of its evaluations, and changes nothing before that; so one search tells of all.

For each bound: evaluations at the stop, median and range over the seeds, and the hypervolume that
is lost against the whole budget, in % of the best-known front's, median and worst seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.results import table, write_results
from benchmarks.search_problems import open_problem, open_reference
from nas.search import SearchResult, search

GAINS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
PROBLEMS = ("small", "digits", "text", "staged")


def stop(result: SearchResult, min_gain: float) -> int:
    """Evaluations after which a search with this bound would have ended."""
    before = 0
    for end, gain in zip(result.batches, result.expected_gains, strict=True):
        if gain is not None and gain < min_gain * (end - before):
            return before
        before = end
    return before


def run(name: str, seed: int, budget: int) -> dict[str, Any]:
    """Evaluations and hypervolume at each bound, and in the end."""
    problem, reference = open_problem(name), open_reference(name)
    result = search(
        problem.space,
        problem.evaluate,
        problem.cheap,
        budget=budget,
        seed=seed,
        constraints=problem.constraints,
        objective_names=problem.names,
    )
    stops = [stop(result, gain) for gain in GAINS]
    return {
        "stops": stops,
        "volumes": [reference.hypervolume(problem, result.values[:count]) for count in stops],
        "end": reference.hypervolume(problem, result.values),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each problem and bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--budget", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(argv)
    found = {
        name: [run(name, seed, options.budget) for seed in range(options.seeds)]
        for name in options.problems
    }
    rows = []
    for name, runs in found.items():
        for column, gain in enumerate(GAINS):
            stops = [one["stops"][column] for one in runs]
            lost = [100 * (one["end"] - one["volumes"][column]) for one in runs]
            rows.append(
                [
                    name if column == 0 else "",
                    f"{gain:g}",
                    f"{np.median(stops):.0f} ({min(stops)} to {max(stops)})",
                    f"{np.median(lost):.3f}",
                    f"{max(lost):.3f}",
                ]
            )
    print(table(["problem", "min_gain", "evaluations", "lost, %", "worst, %"], rows))
    print(f"\n{write_results('search_stopping', {'gains': list(GAINS), 'problems': found})}")


if __name__ == "__main__":
    main()
