"""One cell of the search benchmark: one algorithm on one problem with one seed, kept in a file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nas.search
import predictors
from benchmarks.results import FOLDER
from benchmarks.search_problems import SearchProblem, open_problem, open_reference
from nas.atomic import write_json
from nas.search import ALGORITHMS, search
from search_spaces import Architecture, UserError

CELLS = FOLDER / "search" / "cells"
STEP = 10
"""The hypervolume is taken after every so many evaluations."""
ANYTIME_PROBLEM = "staged"
"""Where it is checked that a short search is the beginning of a long one; instantaneous."""
CHEAP = "+cheap"
"""Ends the name of a contender that is told which objectives are known at no cost."""
POPULATIONS = {"linas": 50}
"""As published; the others have the default of `nas.search.search`."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run."""

    problem: str
    contender: str
    """Name of an algorithm, or `auto`, with or without `+cheap`."""
    seed: int
    budget: int

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        return CELLS / self.problem / self.contender / f"{self.seed}-{self.budget}.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of a cell."""

    volumes: NDArray[np.float64]
    """Hypervolume after every `STEP` evaluations, `(budget / STEP,)`; see `Reference.volume`."""
    front: NDArray[np.float64]
    """Values of the front at the end, `(f, m)`."""
    engine_s: float
    """CPU time of the search without that of the evaluations: the same on a busy machine."""
    evaluations: int
    """Fewer than the budget only where the space or the bounds hold no more."""
    code: str
    """Digest of the code that gave it, see `code_digest`."""


def check_contender(name: str) -> str:
    """Return the name of a contender.

    Raises:
        UserError: There is no such algorithm.
    """
    algorithm = name.removesuffix(CHEAP)
    if algorithm != "auto" and algorithm not in ALGORITHMS:
        raise UserError(
            f"contender {name} is not known; choose of auto, {', '.join(sorted(ALGORITHMS))}, each "
            f"with or without {CHEAP}"
        )
    return name


def run_search(
    problem: SearchProblem, contender: str, seed: int, budget: int
) -> tuple[nas.search.SearchResult, float]:
    """Run a contender; returns its result and the CPU seconds that evaluations took."""
    spent = 0.0
    cheap = contender.endswith(CHEAP)
    algorithm = contender.removesuffix(CHEAP)

    def evaluate(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        nonlocal spent
        started = time.process_time()
        values = problem.evaluate if cheap else problem.black_box
        found = np.asarray(values(architectures), dtype=np.float64)
        spent += time.process_time() - started
        return found

    options: dict[str, Any] = {}
    if algorithm in POPULATIONS:
        options["population"] = POPULATIONS[algorithm]
    result = search(
        problem.space,
        evaluate,
        cheap=problem.cheap if cheap else None,
        budget=budget,
        algorithm=algorithm,
        seed=seed,
        constraints=problem.constraints,
        objective_names=problem.names,
        **options,
    )
    return result, spent


def run_cell(cell: Cell) -> Outcome:
    """The outcome of a cell: from its file, or computed and kept there."""
    if not cell.path.exists():
        problem, reference = open_problem(cell.problem), open_reference(cell.problem)
        started = time.process_time()
        result, spent = run_search(problem, cell.contender, cell.seed, cell.budget)
        engine_s = time.process_time() - started - spent
        front = np.zeros((0, len(problem.names)))
        volumes = []
        for end in range(STEP, cell.budget + 1, STEP):
            # Beyond the end of the space nothing is added, and the volume stays as it is.
            front = problem.front(np.vstack([front, result.values[end - STEP : end]]))
            volumes.append(reference.volume(front))
        cell.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            cell.path,
            {
                "schema": 1,
                "volumes": volumes,
                "front": front.tolist(),
                "engine_s": engine_s,
                "evaluations": len(result.values),
                "code": code_digest(),
            },
        )
    data = json.loads(cell.path.read_text(encoding="utf-8"))
    names = open_problem(cell.problem).names
    return Outcome(
        volumes=np.array(data["volumes"]),
        front=np.array(data["front"], dtype=np.float64).reshape(-1, len(names)),
        engine_s=data["engine_s"],
        evaluations=data["evaluations"],
        code=data["code"],
    )


def is_anytime(contender: str, budgets: Sequence[int]) -> bool:
    """Whether a search with the second budget begins with what the first one evaluates.

    Then one search with the largest budget serves for all of them.
    """
    opened = open_problem(ANYTIME_PROBLEM)
    short, long = (run_search(opened, contender, 0, budget)[0] for budget in sorted(budgets)[:2])
    return short.architectures == long.architectures[: len(short.architectures)]


def forget(problems: Iterable[str], contenders: Iterable[str]) -> None:
    """Remove the kept cells of contenders."""
    for problem in problems:
        for contender in contenders:
            for path in (CELLS / problem / contender).glob("*.json"):
                path.unlink()


def code_digest() -> str:
    """Sixteen hexadecimal digits that change with the code of `nas.search` and its predictors."""
    digest = hashlib.sha256()
    for package in (nas.search, predictors):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
