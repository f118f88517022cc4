"""Measured latencies of HAT's form (arXiv:2005.14187): files, splits, and how predictions fare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from predictors.accuracy import mape
from predictors.latency import COVERAGE_Z
from search_spaces import UserError

Array = NDArray[np.float64]

FEATURES, COLUMNS = 10, 14
"""Columns of features, then latency of encoder and decoder, then their standard deviations."""
MIN_ROWS = 60


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One file."""

    name: str
    features: Array
    """Shape `(n, 10)`."""
    latency: Array
    """Shape `(n,)`: encoder plus decoder."""

    def split(self, size: int, seed: int) -> tuple[Array, Array, Array, Array]:
        """Features and latency of `size` rows to learn from, and of the others."""
        order = np.random.default_rng((seed, size)).permutation(len(self.latency))
        x, y = self.features[order], self.latency[order]
        return x[:size], y[:size], x[size:], y[size:]


def read(path: Path) -> Measured:
    """A CSV of HAT's form.

    Raises:
        UserError: It is not one.
    """
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a CSV of numbers under a header: {reason}") from error
    if values.shape[1] != COLUMNS or len(values) < MIN_ROWS:
        raise UserError(
            f"{path}: {len(values)} rows of {values.shape[1]} columns; "
            f"give {COLUMNS} columns, as in HAT's data sets, and at least {MIN_ROWS} rows"
        )
    latency = values[:, FEATURES] + values[:, FEATURES + 1]
    if not (np.isfinite(values[:, : FEATURES + 2]).all() and latency.min() > 0):
        raise UserError(f"{path}: a value is not finite or a latency not above 0; leave it out")
    return Measured(name=path.stem, features=values[:, :FEATURES], latency=latency)


def read_folder(folder: Path) -> list[Measured]:
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
