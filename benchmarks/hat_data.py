"""Measured latencies of HAT's form (arXiv:2005.14187): files, splits, and how predictions fare."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from predictors.accuracy import mape
from predictors.latency import COVERAGE_Z
from search_spaces import UserError

Array = NDArray[np.float64]

LATENCY, DEVIATION = "latency", "std"
"""How the names of columns begin that are no features; and what those of deviations hold."""
HAT_COLUMNS = (
    *(f"feature {n}" for n in range(10)),
    *(f"latency {n}" for n in range(2)),
    *(f"latency std {n}" for n in range(2)),
)
"""What a header of other names stands for."""
MIN_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One file."""

    name: str
    columns: tuple[str, ...]
    """Names of the features, d of them; HAT has ten."""
    features: Array
    """Shape `(n, d)`."""
    latency: Array
    """Shape `(n,)`, ms: encoder plus decoder."""

    def split(self, size: int, seed: int) -> tuple[Array, Array, Array, Array]:
        """Features and latency of `size` rows to learn from, and of the others."""
        order = np.random.default_rng((seed, size)).permutation(len(self.latency))
        x, y = self.features[order], self.latency[order]
        return x[:size], y[:size], x[size:], y[size:]


def read(path: Path) -> Measured:
    """A CSV of HAT's form: features, then columns whose names begin with `latency`.

    The latency is the sum of these, less those that are standard deviations. With other names, the
    fourteen columns are HAT's.

    Raises:
        UserError: It is not one; the message names the line and the column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a CSV of numbers under a header: {reason}") from error
    names = [name.strip() for name in text.partition("\n")[0].split(",")]
    numbers = all(name.replace(".", "", 1).isdigit() for name in names)
    if len(names) == len(HAT_COLUMNS) and not any(name.startswith(LATENCY) for name in names):
        names = list(HAT_COLUMNS)
    told = [name for name in names if name.startswith(LATENCY)]
    columns = [name for name in names if name not in told]
    timed = [names.index(name) for name in told if DEVIATION not in name]
    if numbers or not columns or not timed or len(names) != len(set(names)):
        raise UserError(
            f"{path}: the header {', '.join(names)[:80]!r} must name each column, "
            f"and begin the names of latencies with {LATENCY!r}, as in HAT's data sets"
        )
    if values.shape[1] != len(names) or len(values) < MIN_ROWS:
        raise UserError(
            f"{path}: {len(values)} rows of {values.shape[1]} columns; "
            f"give {len(names)} columns, as in the header, and at least {MIN_ROWS} rows"
        )
    used = [index for index, name in enumerate(names) if name in columns or index in timed]
    for row, column in np.argwhere(~np.isfinite(values)):
        if column in used:
            raise UserError(
                f"{path}, row {row + 1}: {names[column]} {values[row, column]} is not finite; "
                "leave the row out"
            )
    latency = values[:, timed].sum(axis=1)
    row = int(latency.argmin())
    if latency[row] <= 0:
        raise UserError(
            f"{path}, row {row + 1}: the latency {latency[row]:g} is not above 0; leave the row out"
        )
    features = values[:, [names.index(name) for name in columns]]
    return Measured(name=path.stem, columns=tuple(columns), features=features, latency=latency)


def read_folder(folder: Path) -> list[Measured]:
    """All files of a folder, by name.

    Raises:
        UserError: There is none, or one is not of HAT's form.
    """
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise UserError(f"{folder}: no CSV there; give a folder, as in DATA=folder")
    return [read(path) for path in paths]


def judged(predicted: Array, measured: Array, std: Array | None = None) -> dict[str, float]:
    """The figures of a prediction; the coverage is that of the 90 % intervals."""
    result = {
        "mape": mape(predicted, measured),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "kendall": float(kendalltau(predicted, measured).statistic),
    }
    if std is not None:
        covered = np.abs(predicted - measured) <= COVERAGE_Z * std
        result["coverage"] = float(covered.mean())
    return result
