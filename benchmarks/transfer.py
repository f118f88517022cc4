"""Ten rows of a new device, with another one known: for every ordered pair of files.

The seed draws the rows that may be measured; all others are judged on. Ten of them are chosen by
`LatencyPredictor.propose`, which sees their features alone, or are the first ten of the draw.

"Scale alone" is no method: all rows of the new device, also those judged on, tell how latencies
relate to each other there, and the ten rows only how fast the device is. A transfer can hardly be
expected to know more than that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.hat_data import Measured, judged
from benchmarks.results import percent, table
from benchmarks.ridge_or_svr import ridge_or_svr
from predictors.latency import LatencyPredictor

FEW, MORE, MIN_ROWS = 10, 50, 60
POOL_SHARE = 0.5
"""Share of a file's rows that may be measured."""
COLUMNS = {
    "chosen_with": "10 chosen, with it",
    "random_with": "10 random, with it",
    "chosen_alone": "10 chosen, alone",
    "random_alone": "10 random, alone",
    "more_alone": "50 random, alone",
    "ridge_or_svr": "50, ridge or svr",
    "scale_alone": "10 random, scale alone",
}


@dataclass(frozen=True, kw_only=True)
class TransferJob:
    """One thing to learn from few rows, and judge; picklable."""

    column: str
    """One of `COLUMNS`."""
    data: Measured
    seed: int
    source: str = ""
    known: LatencyPredictor | None = None
    """What was learned from all rows of the source; of the data itself for "scale alone"."""

    def run(self) -> dict[str, Any]:
        """What was done, and its figures."""
        order = np.random.default_rng((self.seed, FEW)).permutation(len(self.data.latency))
        cut = max(MORE, int(POOL_SHARE * len(order)))
        pool, unseen = order[:cut], order[cut:]
        features, latency = self.data.features, self.data.latency
        rows = pool[: MORE if self.column in ("more_alone", "ridge_or_svr") else FEW]
        if self.column.startswith("chosen"):
            rows = pool[LatencyPredictor.propose(features[pool], FEW, source=self.known)]
        if self.column == "scale_alone":
            assert self.known is not None
            shape, _ = self.known.predict(features)
            found = judged(shape[unseen] * _center(latency[rows] / shape[rows]), latency[unseen])
        elif self.column == "ridge_or_svr":
            mean = ridge_or_svr(features[rows], latency[rows])(features[unseen])
            found = judged(mean, latency[unseen])
        else:
            learned = LatencyPredictor().fit(features[rows], latency[rows], source=self.known)
            mean, std = learned.predict(features[unseen])
            found = judged(mean, latency[unseen], std)
        about = {"method": self.column, "data": self.data.name, "source": self.source}
        return {**about, "size": len(rows), "seed": self.seed, **found}


def _center(values: np.ndarray) -> float:
    """Median of the means of every two values and of each with itself (Hodges and Lehmann 1963).

    A few may be far off.
    """
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2))


def transfer_jobs(sets: Sequence[Measured], seeds: int) -> list[TransferJob]:
    """Everything that the table needs; files with few rows are left out."""
    sets = [data for data in sets if len(data.latency) >= MIN_ROWS]
    known = {data.name: LatencyPredictor().fit(data.features, data.latency) for data in sets}
    alone = [
        TransferJob(
            column=column,
            data=data,
            seed=seed,
            known=known[data.name] if column == "scale_alone" else None,
        )
        for data, column, seed in itertools.product(sets, COLUMNS, range(seeds))
        if not column.endswith("with")
    ]
    return alone + [
        TransferJob(column=column, data=new, seed=seed, source=old.name, known=known[old.name])
        for (old, new), column, seed in itertools.product(
            itertools.permutations(sets, 2), COLUMNS, range(seeds)
        )
        if column.endswith("with") and old.columns == new.columns
    ]


def averages(results: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The mean of every figure that all results have."""
    rows = list(results)
    names = ("mape", "spearman", "kendall", "coverage", "fit_s")
    return {
        name: float(np.mean([row[name] for row in rows]))
        for name in names
        if rows and name in rows[0]
    }


def transfer_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each ordered pair of files: the figures of every column."""
    pairs = dict.fromkeys((r["source"], r["data"]) for r in results if r["source"])
    return [
        {
            "source": source,
            "data": target,
            **{
                column: averages(
                    r
                    for r in results
                    if (r["method"], r["data"]) == (column, target) and r["source"] in ("", source)
                )
                for column in COLUMNS
            },
        }
        for source, target in pairs
    ]


def show_transfer(rows: Sequence[dict[str, Any]]) -> str:
    """MAPE by pair, and the share within the 90 % intervals of the first column."""
    return table(
        ["known", "new", *COLUMNS.values(), "coverage"],
        [
            [
                row["source"],
                row["data"],
                *(percent(row[column]["mape"]) for column in COLUMNS),
                percent(row["chosen_with"]["coverage"], 1),
            ]
            for row in rows
        ],
    )
