"""What runs of a problem are judged by: one corner for all, and the best front that is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_problems.problem import SearchProblem
from nas.atomic import write_json
from nas.search import hypervolume, search
from nas.search.enumeration import enumerate_genes
from search_spaces import Architecture

Floats = NDArray[np.float64]

MARGIN = 0.1
"""The corner lies so far beyond the worst of the front, as a share of the front's range."""
_AT_ONCE = 64
_POPULATION = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """The corner that hypervolumes are measured to, and a front to compare with."""

    corner: Floats
    """Shape `(m,)`; fixed at set-up, so that figures of different days compare."""
    ideal: Floats
    """Shape `(m,)`; far beyond any value. It scales a volume, and no share of one depends on it."""
    front: Floats
    """Values of the true or best-known front, `(f, m)`."""
    complete: bool
    """Whether it is the true one."""

    def volume(self, front: Floats) -> float:
        """Hypervolume of feasible points `(n, m)`; only shares of two such volumes mean much."""
        return hypervolume(front, ideal=self.ideal, reference=self.corner)

    def hypervolume(self, problem: SearchProblem, values: Floats) -> float:
        """Hypervolume of the feasible rows of `values` `(n, m)` as a share of the front's."""
        return self.volume(problem.front(values)) / self.volume(self.front)

    def joined(self, problem: SearchProblem, values: Floats) -> Reference:
        """The same corner, with a front that knows of `values` too."""
        if self.complete:
            return self
        return replace(self, front=problem.front(np.vstack([self.front, values])))


def reference(problem: SearchProblem, folder: Path) -> Reference:
    """The reference of a problem, from `folder`; made there at the first call.

    An enumerable space is evaluated as a whole. Elsewhere a long NSGA-II gives the corner and a
    first front, which `Reference.joined` betters by what other runs found.
    """
    path = folder / f"{problem.name}.json"
    if not path.exists():
        if problem.enumerable:
            values = _everything(problem)
        else:
            values = search(
                problem.space,
                problem.black_box,
                budget=problem.reference_budget,
                algorithm="nsga2",
                population=_POPULATION,
                constraints=problem.constraints,
                objective_names=problem.names,
                seed=1_000_000,
            ).values
        front = problem.front(values)
        low, high = front.min(axis=0), front.max(axis=0)
        made = {
            "schema": 1,
            "names": list(problem.names),
            "corner": (high + MARGIN * (high - low)).tolist(),
            "ideal": (low - 2 * (high - low)).tolist(),
            "complete": problem.enumerable,
            "feasible_share": float((problem.violation(values) == 0).mean()),
            "front": np.unique(front, axis=0).tolist(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, made)
    data = json.loads(path.read_text(encoding="utf-8"))
    return Reference(
        corner=np.array(data["corner"]),
        ideal=np.array(data["ideal"]),
        front=np.array(data["front"]),
        complete=data["complete"],
    )


def architectures(problem: SearchProblem) -> list[Architecture]:
    """Every architecture of a small space."""
    return [problem.space.decode(genes) for genes in enumerate_genes(problem.space)]


def _everything(problem: SearchProblem) -> Floats:
    every: Sequence[Architecture] = architectures(problem)
    rows = []
    for start in range(0, len(every), _AT_ONCE):
        rows.append(problem.black_box(every[start : start + _AT_ONCE]))
        if start % (_AT_ONCE * 16) == 0:
            print(f"{problem.name}: {start} of {len(every)} evaluated", file=sys.stderr, flush=True)
    return np.vstack(rows)
