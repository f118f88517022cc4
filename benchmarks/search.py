"""Search algorithms on problems with a known or best-known front: who finds how much, how soon.

For each problem, algorithm and seed one search; its hypervolume as a share of that of the true
front, or of the best front that any run ever found. Random search, NSGA-II, LINAS
(arXiv:2205.10358) and `auto` are given a black box; `auto+cheap` is told which objectives are known
at no cost.

Bars, on the medians over the seeds:

- as a black box, auto at 200 evaluations is at least LINAS at 400, on every problem;
- auto is never behind any of the others, at any budget;
- with the cheap objectives declared, auto at 100 is at least LINAS at 400;
- the engine's own cost is below 50 ms an evaluation.

Behind means by more than 0.1 % of the front's hypervolume. The exit code is 1 if a bar is missed.

At its first use it trains three small supernets (minutes); every subnet is evaluated once, for all
algorithms and seeds. Finished searches are kept under runs/benchmarks/search: interrupted, the
benchmark goes on from there. `--fresh` forgets those of the algorithms it is given.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.results import table, write_results
from benchmarks.search_cells import (
    CHEAP,
    Cell,
    Outcome,
    check_contender,
    code_digest,
    forget,
    is_anytime,
    run_cell,
)
from benchmarks.search_judgement import bars, summarize
from benchmarks.search_plot import write_plot
from benchmarks.search_problems import PROBLEMS, SUPERNET_GROUPS, open_problem, open_reference
from latency.host_facts import available_cpus
from search_spaces import UserError

BUDGETS = (50, 100, 200, 400, 800)
CONTENDERS = ("random", "nsga2", "linas", "auto", "auto+cheap")


def prepare(names: Sequence[str]) -> dict[str, str]:
    """Train, evaluate and find the reference of problems that share a supernet; their titles."""
    for name in names:
        open_reference(name)
    return {name: open_problem(name).title for name in names}


def for_each(
    workers: int,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    done: Callable[[Any, Any], None],
) -> None:
    """Call a function for each argument, in so many processes; `done` gets argument and result."""
    if workers == 1:
        for argument in arguments:
            done(argument, function(argument))
        return
    # A fresh interpreter for each worker: forking one that has torch's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, argument): argument for argument in arguments}
        for future in as_completed(futures):
            done(futures[future], future.result())


def report(count: int, total: int, text: str) -> None:
    """One line of progress."""
    print(f"{count} of {total}: {text}", file=sys.stderr, flush=True)


def run_all(options: argparse.Namespace) -> tuple[dict[Cell, Outcome], dict[str, str]]:
    """All outcomes by cell, and the titles of the problems."""
    problems, contenders, budgets = options.problems, options.algorithms, options.budgets
    outcomes: dict[Cell, Outcome] = {}
    titles: dict[str, str] = {}

    def ready(_: Any, found: dict[str, str]) -> None:
        titles.update(found)
        report(len(titles), len(problems), f"problems are ready: {', '.join(found)}")

    groups = [tuple(n for n in group if n in problems) for group in SUPERNET_GROUPS]
    for_each(options.workers, prepare, [group for group in groups if group], ready)
    anytime = {name: len(budgets) == 1 or is_anytime(name, budgets) for name in contenders}
    cells = [
        Cell(problem=problem, contender=contender, seed=seed, budget=budget)
        for seed in range(options.seeds)
        # The slow ones first, so that both cores are busy to the end.
        for contender in sorted(contenders, key=lambda name: name in ("random", "nsga2"))
        for problem in problems
        if open_problem(problem).cheap is not None or not contender.endswith(CHEAP)
        for budget in ([max(budgets)] if anytime[contender] else budgets)
    ]

    def done(cell: Cell, outcome: Outcome) -> None:
        outcomes[cell] = outcome
        text = f"{cell.problem} {cell.contender} seed {cell.seed}, {outcome.engine_s:.1f} s"
        report(len(outcomes), len(cells), text)

    for_each(options.workers, run_cell, cells, done)
    return outcomes, titles


def show(summary: Mapping[str, Any], titles: Mapping[str, str], budgets: Sequence[int]) -> str:
    """Medians by problem, algorithm and budget."""
    rows = []
    for problem, contenders in summary.items():
        for place, (contender, found) in enumerate(contenders.items()):
            medians = [f"{100 * found['median'][str(budget)]:.2f}" for budget in budgets]
            engine = f"{1000 * found['engine_s_per_evaluation']:.1f}"
            rows.append([titles[problem] if place == 0 else "", contender, *medians, engine])
    header = ["problem", "algorithm", *(str(budget) for budget in budgets), "ms"]
    return table(header, rows)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--algorithms", nargs="+", default=list(CONTENDERS), metavar="NAME[+cheap]")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=len(available_cpus()))
    parser.add_argument("--fresh", action="store_true", help="forget the searches chosen here")
    parser.add_argument("--plot", type=Path, help="write a picture there, as docs/search.svg")
    options = parser.parse_args(argv)
    try:
        for name in options.algorithms:
            check_contender(name)
        if any(budget < 10 or budget % 10 for budget in options.budgets):
            raise UserError(f"budgets {options.budgets} are not all multiples of 10; round them")
    except UserError as error:
        parser.error(str(error))
    options.budgets = sorted(set(options.budgets))
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Print the medians, then the bars."""
    options = parsed(argv)
    # Inherited by the workers: two of them with two threads each would wait for one another.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if options.fresh:
        forget(options.problems, options.algorithms)
    outcomes, titles = run_all(options)
    summary = summarize(outcomes, options.problems, options.algorithms, options.budgets)
    print(show(summary, titles, options.budgets))
    stale = sorted(
        {c.contender for c, outcome in outcomes.items() if outcome.code != code_digest()}
    )
    if stale:
        print(f"\nof other code than today's: {', '.join(stale)}; --fresh runs them again")
    judged = bars(summary, options.budgets)
    print()
    for bar in judged:
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['text']}")
    written = write_results(
        "search",
        {
            "budgets": options.budgets,
            "seeds": options.seeds,
            "titles": titles,
            "other_code": stale,
            "problems": summary,
            "bars": judged,
        },
    )
    if options.plot:
        write_plot(summary, titles, options.plot)
    print(f"\n{written}")
    sys.exit(0 if all(bar["met"] for bar in judged if bar["counts"]) else 1)


if __name__ == "__main__":
    main()
