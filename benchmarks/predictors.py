"""Latency learned from few measured architectures, on every CSV of HAT's form in a folder.

Beside ours: ridge regression and a support vector machine, whichever has the smaller MAPE in
cross-validation (as in DyNAS-T, but columns are standardized), from the same rows;
and HAT's own network by its own recipe (arXiv:2005.14187), from 80 % of the rows. Judged on rows
that were not learned from. Then what is known of one device helps with 10 rows of another, for
every ordered pair, against 10 and 50 rows alone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from benchmarks.results import number, percent, table, write_results
from predictors.accuracy import mape
from predictors.latency import COVERAGE_Z, LatencyPredictor
from search_spaces import UserError

Array = NDArray[np.float64]

FEATURES, COLUMNS = 10, 14
"""Columns of features, then latency of encoder and decoder, then their standard deviations."""
MIN_ROWS = 60
SIZES = (10, 25, 50, 100, 200, 400, 1600)
TRANSFER_ROWS, ALONE_ROWS = 10, 50
HAT_SHARE = 0.8
HAT_NORM = (640, 6, 2048, 6, 640, 6, 2048, 6, 6, 2)
HAT_WIDTH, HAT_HIDDEN, HAT_RATE, HAT_BATCH = 400, 4, 1e-5, 128
"""As in HAT's `latency_predictor.py`, where the first layer comes before three hidden ones."""
SEARCH_ROWS = 400
"""The SVM's search on more rows takes most of an hour; the best one then learns from all."""
METRICS = ("mape", "spearman", "kendall", "coverage")


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


def ours(data: Measured, size: int, seed: int, source: LatencyPredictor | None) -> dict[str, float]:
    x, y, unseen, truth = data.split(size, seed)
    started = time.perf_counter()
    predictor = LatencyPredictor().fit(x, y, source=source)
    fit_s = time.perf_counter() - started
    mean, std = predictor.predict(unseen)
    return {**judged(mean, truth, std), "fit_s": fit_s}


def ridge_or_svr(data: Measured, size: int, seed: int) -> dict[str, float]:
    x, y, unseen, truth = data.split(size, seed)
    unit = 10 ** (np.floor(np.log10(y.max())) - 1)  # as in DyNAS-T: the largest has two digits
    few = slice(SEARCH_ROWS)
    searches = [
        GridSearchCV(
            make_pipeline(StandardScaler(), model),
            grid,
            scoring="neg_mean_absolute_percentage_error",
            cv=KFold(5, shuffle=True, random_state=0),
        ).fit(x[few], y[few] / unit)
        for model, grid in (
            (Ridge(), {"ridge__alpha": (0.1, 0.3, 1.0, 3.0, 10.0)}),
            (SVR(gamma="auto", epsilon=0.0), {"svr__C": (1.0, 3.0, 10.0, 30.0, 100.0)}),
        )
    ]
    best = max(searches, key=lambda search: search.best_score_).best_estimator_.fit(x, y / unit)
    return judged(best.predict(unseen) * unit, truth)


def hat_network(data: Measured, seed: int, steps: int) -> dict[str, float]:
    """HAT's MLP by its recipe; the latency is divided by its mean, as HAT does by about that."""
    x, y, unseen, truth = data.split(int(HAT_SHARE * len(data.latency)), seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unit = y.mean()
    inputs = torch.tensor(x / HAT_NORM, dtype=torch.float32)
    targets = torch.tensor(y / unit, dtype=torch.float32)
    widths = [FEATURES, *[HAT_WIDTH] * HAT_HIDDEN]
    layers: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(HAT_WIDTH, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=HAT_RATE)
    for _ in range(steps):
        drawn = torch.from_numpy(rng.choice(len(y), min(HAT_BATCH, len(y)), replace=False))
        loss = torch.nn.functional.mse_loss(network(inputs[drawn])[:, 0], targets[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = network(torch.tensor(unseen / HAT_NORM, dtype=torch.float32))[:, 0]
    return judged(predicted.double().numpy() * unit, truth)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing to learn and judge; picklable."""

    method: str
    data: Measured
    size: int
    seed: int
    source: str = ""
    predictor: LatencyPredictor | None = None
    """What is known of the source."""
    steps: int = 5000

    def run(self) -> dict[str, Any]:
        """What was done, and its figures."""
        match self.method:
            case "ours":
                found = ours(self.data, self.size, self.seed, self.predictor)
            case "ridge or svr":
                found = ridge_or_svr(self.data, self.size, self.seed)
            case _:
                found = hat_network(self.data, self.seed, self.steps)
        return {
            "method": self.method,
            "data": self.data.name,
            "size": self.size,
            "seed": self.seed,
            "source": self.source,
            **found,
        }


def jobs(
    sets: Sequence[Measured], sizes: Sequence[int], seeds: int, mlp_seeds: int, steps: int
) -> list[Job]:
    """All that is to be learned, the longest first."""
    result = []
    for data in sets:
        most = int(HAT_SHARE * len(data.latency))
        for seed in range(mlp_seeds):
            result.append(Job(method="hat", data=data, size=most, seed=seed, steps=steps))
        for size in sorted((size for size in sizes if size <= most), reverse=True):
            for method in ("ridge or svr", "ours"):
                for seed in range(seeds):
                    result.append(Job(method=method, data=data, size=size, seed=seed))
    known = {data.name: LatencyPredictor().fit(data.features, data.latency) for data in sets}
    for source, target in itertools.permutations(sets, 2):
        result += [
            Job(
                method="ours",
                data=target,
                size=TRANSFER_ROWS,
                seed=seed,
                source=source.name,
                predictor=known[source.name],
            )
            for seed in range(seeds)
        ]
    return result


def averages(results: Iterable[dict[str, Any]]) -> dict[str, float]:
    rows = list(results)
    return {
        metric: float(np.mean([row[metric] for row in rows]))
        for metric in (*METRICS, "fit_s")
        if rows and metric in rows[0]
    }


def learning_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each file, size and method, and one for the mean of the files."""
    alone = [row for row in results if not row["source"]]
    keys = dict.fromkeys((row["data"], row["method"], row["size"]) for row in alone)
    rows = []
    for data, method, size in keys:
        key = {"data": data, "method": method, "size": size}
        rows.append({**key, **averages(r for r in alone if all(r[k] == key[k] for k in key))})
    sizes = dict.fromkeys((row["method"], row["size"]) for row in rows)
    means = [
        {
            "data": "mean of the files",
            "method": method,
            "size": size,
            **averages(r for r in rows if (r["method"], r["size"]) == (method, size)),
        }
        for method, size in sizes
    ]
    return sorted([*rows, *means], key=lambda r: (r in means, r["data"], r["size"], r["method"]))


def transfer_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each ordered pair of files: 10 rows with the source, and 10 and 50 without."""
    rows = []
    pairs = dict.fromkeys((r["source"], r["data"]) for r in results if r["source"])
    for source, target in pairs:
        there = [r for r in results if r["data"] == target]
        with_source = averages(r for r in there if r["source"] == source)

        def alone(size: int, method: str, there: list[dict[str, Any]] = there) -> float | None:
            chosen = [
                r for r in there if (r["size"], r["method"], r["source"]) == (size, method, "")
            ]
            return averages(chosen).get("mape")

        rows.append(
            {
                "source": source,
                "data": target,
                **with_source,
                "alone_10": alone(TRANSFER_ROWS, "ours"),
                "alone_50": alone(ALONE_ROWS, "ours"),
                "ridge_or_svr_50": alone(ALONE_ROWS, "ridge or svr"),
            }
        )
    return rows


def show(learning: Sequence[dict[str, Any]], transfer: Sequence[dict[str, Any]]) -> str:
    first = table(
        ["data", "rows", "method", "MAPE", "Spearman", "Kendall", "coverage", "fit s"],
        [
            [
                row["data"],
                str(row["size"]),
                row["method"],
                percent(row["mape"]),
                number(row["spearman"]),
                number(row["kendall"]),
                percent(row.get("coverage"), 1),
                number(row.get("fit_s"), 2),
            ]
            for row in learning
        ],
    )
    second = table(
        ["known", "new", "MAPE at 10 rows", "coverage", "10 alone", "50 alone", "ridge or svr 50"],
        [
            [
                row["source"],
                row["data"],
                percent(row["mape"]),
                percent(row["coverage"], 1),
                *(percent(row[k]) for k in ("alone_10", "alone_50", "ridge_or_svr_50")),
            ]
            for row in transfer
        ],
    )
    return f"{first}\n\n{second}"


def predict_seconds(data: Measured, count: int = 10_000) -> float:
    """Time to predict `count` architectures, the best of five."""
    predictor = LatencyPredictor().fit(data.features, data.latency)
    many = np.resize(data.features, (count, FEATURES))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        predictor.predict(many)
        times.append(time.perf_counter() - started)
    return min(times)


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the CSVs are")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows to learn from")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--mlp-seeds", type=int, default=2)
    parser.add_argument("--mlp-steps", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--name", default="predictors", help="of the JSON file")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        sets = read_folder(options.folder)
    except UserError as error:
        print(f"bench-predictors: {error}", file=sys.stderr)
        sys.exit(2)
    work = jobs(sets, options.sizes, options.seeds, options.mlp_seeds, options.mlp_steps)
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(Job.run, work))
    else:
        results = [job.run() for job in work]
    learning, transfer = learning_rows(results), transfer_rows(results)
    predict_s = predict_seconds(sets[0])
    written = write_results(
        options.name,
        {
            "learning": learning,
            "transfer": transfer,
            "predict_10000_s": predict_s,
            "wall_s": time.perf_counter() - started,
            "results": results,
        },
    )
    print(show(learning, transfer))
    print(f"\n10,000 architectures predicted in {predict_s:.3f} s")
    print(f"\n{written}")


if __name__ == "__main__":
    main()
