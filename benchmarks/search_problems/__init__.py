"""The problems that search algorithms are measured with, by name.

`open_problem("digits")` trains the supernet at its first use and evaluates every subnet at most
once; `open_reference` gives the corner and the best front that is known. Everything lies under
`runs/benchmarks/search`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.results import FOLDER
from benchmarks.search_problems.problem import SearchProblem
from benchmarks.search_problems.reference import Reference, reference
from benchmarks.search_problems.synthetic import layered, rugged, staged
from benchmarks.search_problems.transformers import bounded, digits, small, text, three

PROBLEMS: dict[str, Callable[[], SearchProblem]] = {
    "small": small,
    "digits": digits,
    "bounded": bounded,
    "three": three,
    "text": text,
    "layered": layered,
    "rugged": rugged,
    "staged": staged,
}

SUPERNET_GROUPS = (
    ("text",),
    ("digits", "bounded", "three"),
    ("small",),
    ("layered", "rugged", "staged"),
)
"""Problems that share a supernet, so that only one process trains it; the slowest set-up first."""

REFERENCES: Path = FOLDER / "search" / "references"


@cache
def open_problem(name: str) -> SearchProblem:
    """The problem of that name; trains its supernet if need be."""
    return PROBLEMS[name]()


@cache
def open_reference(name: str) -> Reference:
    """Corner and best-known front of a problem; made at the first call."""
    return reference(open_problem(name), REFERENCES)


__all__ = [
    "PROBLEMS",
    "REFERENCES",
    "SUPERNET_GROUPS",
    "Reference",
    "SearchProblem",
    "open_problem",
    "open_reference",
]
