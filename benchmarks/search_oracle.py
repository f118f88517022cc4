"""How few evaluations could do: the greedy choice of an oracle that knows the best-known front.

It evaluates nothing but points of the front, one after the other where the hypervolume grows
most. (The best choice of so many points may hold a little more than the greedy one.) For each
problem: points of the front, how many of them it takes to LINAS's median hypervolume at 400
evaluations, and the hypervolume of so many points as each budget has evaluations.

Fronts and LINAS's medians are those of `python -m benchmarks.search`, which is to be run before.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import table, write_results
from benchmarks.search_cells import CELLS, STEP, Cell, Outcome, run_cell
from benchmarks.search_judgement import RIVAL, serves
from benchmarks.search_problems import PROBLEMS, open_problem, open_reference

Floats = NDArray[np.float64]

BUDGETS = (10, 20, 50, 100)
RIVAL_BUDGET = 400


def greedy_volumes(front: Floats, volume: Callable[[Floats], float], most: int) -> Floats:
    """Hypervolume after each of the points that are taken, shape `(at most most,)`.

    What a point adds never grows as others are taken, so that what it added before bounds it, and
    few have to be computed again (lazy greedy: Minoux, 1978).

    Args:
        front: Points to choose from, `(f, m)`.
        volume: Hypervolume of points.
        most: Points to take at most.
    """
    # Every entry: the negative gain, the point, and how many were taken when it was computed.
    waiting = [(-volume(front[i : i + 1]), i, 0) for i in range(len(front))]
    heapq.heapify(waiting)
    taken: list[int] = []
    reached: list[float] = []
    have = 0.0
    while waiting and len(taken) < most:
        gain, point, when = heapq.heappop(waiting)
        if when == len(taken):
            taken.append(point)
            have -= gain
            reached.append(have)
        else:
            again = have - volume(front[[*taken, point]])
            heapq.heappush(waiting, (again, point, len(taken)))
    return np.array(reached)


def kept(problem: str) -> dict[Cell, Outcome]:
    """All finished cells of a problem."""
    found = {}
    for path in sorted((CELLS / problem).glob("*/*-*.json")):
        seed, budget = map(int, path.stem.split("-"))
        cell = Cell(problem=problem, contender=path.parent.name, seed=seed, budget=budget)
        found[cell] = run_cell(cell)
    return found


def run(name: str) -> dict[str, float | int | None]:
    """The figures of one problem."""
    problem, outcomes = open_problem(name), kept(name)
    reference = open_reference(name)
    if outcomes:
        found_fronts = np.vstack([found.front for found in outcomes.values()])
        reference = reference.joined(problem, found_fronts)
    front = np.unique(reference.front, axis=0)
    best = reference.volume(front)
    reached = greedy_volumes(front, reference.volume, max(BUDGETS)) / best
    rivals = [(cell, found) for cell, found in outcomes.items() if cell.contender == RIVAL]
    rival = [
        found.volumes[RIVAL_BUDGET // STEP - 1] / best
        for cell, found in rivals
        if serves(cell, rivals, RIVAL_BUDGET)
    ]
    level = float(np.median(rival)) if rival else None
    there = [] if level is None else np.flatnonzero(reached >= level)
    return {
        "front": len(front),
        "rival": level,
        "needed": int(there[0]) + 1 if len(there) else None,
        **{str(b): float(reached[min(b, len(reached)) - 1]) for b in BUDGETS},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each problem."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    options = parser.parse_args(argv)
    figures = {name: run(name) for name in options.problems}
    header = ["problem", "front", f"{RIVAL} at {RIVAL_BUDGET}", "needed", *map(str, BUDGETS)]
    rows = [
        [
            name,
            str(found["front"]),
            "-" if found["rival"] is None else f"{100 * found['rival']:.2f}",
            "-" if found["needed"] is None else str(found["needed"]),
            *(f"{100 * (found[str(budget)] or 0):.3f}" for budget in BUDGETS),
        ]
        for name, found in figures.items()
    ]
    print(table(header, rows))
    print(f"\n{write_results('search_oracle', figures)}")


if __name__ == "__main__":
    main()
