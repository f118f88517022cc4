"""Searches that are killed with SIGKILL at random moments and resumed, against one left alone.

For every algorithm one search is left alone; it takes T seconds. Then, with a fresh store each, a
search is killed at a moment drawn evenly between 0 and T, every fourth one once more, and started
again until it ends. Architectures, values and front must be those of the one left alone, bit for
bit, and the store must hold every evaluation once, in the same order. Each search runs in a process
of its own, with the store of a run (SQLite); evaluations are instantaneous, so that most kills
meet the algorithm itself. The exit code is 1 if something differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import FOLDER, table, write_results
from benchmarks.search_problems.synthetic import staged
from latency.database import connect
from nas.atomic import write_json
from nas.search import ALGORITHMS, search
from nas.store import EvaluationStore
from search_spaces import Architecture

PROBLEM = staged()
NET, SPLIT = "net", "validation"
KILL_AGAIN_EVERY = 4


def run_search(algorithm: str, folder: Path, budget: int) -> None:
    """Search with what the store knows; leaves `result.json` when it is done."""
    with closing(connect(folder / "run.db")) as connection:
        store = EvaluationStore(connection)

        def evaluate(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
            rows = []
            for arch in architectures:
                known = store.get(NET, arch, SPLIT)
                if known is None:
                    value = np.asarray(PROBLEM.evaluate([arch]))[0, 0]
                    store.add(NET, SPLIT, {arch: {"loss": float(value)}})
                    known = {"loss": float(value)}
                rows.append([known["loss"]])
            return np.array(rows)

        result = search(
            PROBLEM.space,
            evaluate,
            PROBLEM.cheap,
            budget=budget,
            algorithm=algorithm,
            constraints=["loss <= 0.8", "cost <= 60"],
            objective_names=PROBLEM.names,
        )
        write_json(
            folder / "result.json",
            {
                "architectures": [arch.to_json() for arch in result.architectures],
                "values": result.values.tolist(),
                "front": result.front.tolist(),
                "stored": [row.architecture.to_json() for row in store.rows()],
            },
        )


def started(algorithm: str, folder: Path, budget: int) -> BaseProcess:
    """A search in a process of its own; forked, so that imports are not paid at every start."""
    folder.mkdir(parents=True, exist_ok=True)
    process = get_context("fork").Process(target=run_search, args=(algorithm, folder, budget))
    process.start()
    return process


def finished(process: BaseProcess) -> None:
    """Wait for the end of a search.

    Raises:
        RuntimeError: It failed.
    """
    process.join()
    if process.exitcode:
        raise RuntimeError(f"a search ended with exit code {process.exitcode}; see above")


def bench(algorithm: str, root: Path, *, kills: int, budget: int, seed: int) -> dict[str, Any]:
    """Kill one algorithm's searches, and compare."""
    rng = np.random.default_rng(seed)
    finished(started(algorithm, root / "warm", budget))  # what is imported late is imported now
    begun_s = time.monotonic()
    finished(started(algorithm, root / "alone", budget))
    alone_s = time.monotonic() - begun_s
    expected = (root / "alone" / "result.json").read_bytes()
    killed, differing, stored = 0, [], []
    for number in range(kills):
        folder = root / f"{number:02d}"
        for _ in range(2 if number % KILL_AGAIN_EVERY == KILL_AGAIN_EVERY - 1 else 1):
            process = started(algorithm, folder, budget)
            process.join(float(rng.uniform(0, alone_s)))
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                killed += 1
                stored.append(count_stored(folder))
        finished(started(algorithm, folder, budget))
        if (folder / "result.json").read_bytes() == expected:
            shutil.rmtree(folder)
        else:
            differing.append(str(folder))
    return {
        "algorithm": algorithm,
        "alone_s": alone_s,
        "searches": kills,
        "killed": killed,
        "stored_at_kill": stored,
        "differing": differing,
    }


def count_stored(folder: Path) -> int:
    """Evaluations in a store; 0 where it was killed before there was one."""
    path = folder / "run.db"
    if not path.exists():
        return 0
    with closing(connect(path)) as connection:
        return EvaluationStore(connection).count()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per algorithm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", choices=sorted(ALGORITHMS), metavar="NAME")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--budget", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(argv)
    results = []
    for algorithm in options.algorithms or sorted(ALGORITHMS):
        root = (FOLDER / "search-kill" / algorithm).absolute()
        shutil.rmtree(root, ignore_errors=True)
        result = bench(
            algorithm, root, kills=options.kills, budget=options.budget, seed=options.seed
        )
        print(f"{algorithm}: {len(result['differing'])} differ", file=sys.stderr, flush=True)
        results.append(result)
    passed = not any(result["differing"] for result in results)
    header = ["algorithm", "alone, s", "searches", "kills", "evaluations at a kill", "identical"]
    rows = [
        [
            result["algorithm"],
            f"{result['alone_s']:.2f}",
            str(result["searches"]),
            str(result["killed"]),
            f"{min(result['stored_at_kill'], default=0)} to "
            f"{max(result['stored_at_kill'], default=0)}",
            str(result["searches"] - len(result["differing"])),
        ]
        for result in results
    ]
    print(table(header, rows))
    written = write_results("search_kill", {"passed": passed, "algorithms": results})
    print("\npassed" if passed else "\nFAILED")
    print(written)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
