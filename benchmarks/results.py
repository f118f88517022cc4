"""What every benchmark leaves behind: a plain table on stdout, and a JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.atomic import write_json
from nas.environment import describe_environment

FOLDER = Path("runs/benchmarks")
"""Results and working directories; relative to the current directory."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash for what is not known."""
    known = value is not None and math.isfinite(value)
    return f"{100 * value:.{digits}f} %" if known and value is not None else "-"


def number(value: float | None, digits: int = 3) -> str:
    """A number; a dash for what is not known."""
    known = value is not None and math.isfinite(value)
    return f"{value:.{digits}f}" if known and value is not None else "-"


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Write `runs/benchmarks/NAME.json`, with the environment, and return its path."""
    path = FOLDER / f"{name}.json"
    write_json(path, {"schema": 1, "environment": describe_environment(), **_finite(results)})
    return path


def _finite(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
