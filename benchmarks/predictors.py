"""Latency learned from few measured architectures, on every CSV of HAT's form in a folder.

Beside ours: ridge regression and a support vector machine, whichever has the smaller MAPE in
cross-validation (as in DyNAS-T, but columns are standardized), from the same rows;
and HAT's own network by its own recipe (arXiv:2005.14187), from 80 % of the rows. Judged on rows
that were not learned from. Then what is known of one device helps with 10 rows of another, for
every ordered pair, chosen or at random (`benchmarks.transfer`).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hat_data import Measured, judged, read_folder
from benchmarks.results import number, percent, table, write_results
from benchmarks.ridge_or_svr import ridge_or_svr
from benchmarks.transfer import (
    TransferJob,
    averages,
    show_transfer,
    transfer_jobs,
    transfer_rows,
)
from predictors.latency import LatencyPredictor
from search_spaces import UserError

SIZES = (10, 25, 50, 100, 200, 400, 1600)
MIN_SIZE = 5
HAT_SHARE = 0.8
HAT_NORM = (640, 6, 2048, 6, 640, 6, 2048, 6, 6, 2)
HAT_WIDTH, HAT_HIDDEN, HAT_RATE, HAT_BATCH = 400, 4, 1e-5, 128
"""As in HAT's `latency_predictor.py`, where the first layer comes before three hidden ones. Columns
of other files than HAT's are divided by their largest value, which HAT's numbers are about."""


def ours(data: Measured, size: int, seed: int) -> dict[str, float]:
    x, y, unseen, truth = data.split(size, seed)
    started = time.perf_counter()
    predictor = LatencyPredictor().fit(x, y)
    fit_s = time.perf_counter() - started
    mean, std = predictor.predict(unseen)
    return {**judged(mean, truth, std), "fit_s": fit_s}


def hat_network(data: Measured, seed: int, steps: int) -> dict[str, float]:
    """HAT's MLP by its recipe; the latency is divided by its mean, as HAT does by about that."""
    x, y, unseen, truth = data.split(int(HAT_SHARE * len(data.latency)), seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unit = y.mean()
    norm = np.array(HAT_NORM) if x.shape[1] == len(HAT_NORM) else np.abs(x).max(axis=0) + 1e-9
    inputs = torch.tensor(x / norm, dtype=torch.float32)
    targets = torch.tensor(y / unit, dtype=torch.float32)
    widths = [x.shape[1], *[HAT_WIDTH] * HAT_HIDDEN]
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
        predicted = network(torch.tensor(unseen / norm, dtype=torch.float32))[:, 0]
    return judged(predicted.double().numpy() * unit, truth)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing to learn and judge; picklable."""

    method: str
    data: Measured
    size: int
    seed: int
    steps: int = 5000

    def run(self) -> dict[str, Any]:
        """What was done, and its figures."""
        match self.method:
            case "ours":
                found = ours(self.data, self.size, self.seed)
            case "ridge or svr":
                x, y, unseen, truth = self.data.split(self.size, self.seed)
                found = judged(ridge_or_svr(x, y)(unseen), truth)
            case _:
                found = hat_network(self.data, self.seed, self.steps)
        return {
            "method": self.method,
            "data": self.data.name,
            "size": self.size,
            "seed": self.seed,
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
    return result


def learning_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each file, size and method, and one for the mean of the files."""
    keys = dict.fromkeys((row["data"], row["method"], row["size"]) for row in results)
    rows = []
    for data, method, size in keys:
        key = {"data": data, "method": method, "size": size}
        rows.append({**key, **averages(r for r in results if all(r[k] == key[k] for k in key))})
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


def show(learning: Sequence[dict[str, Any]]) -> str:
    return table(
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


def predict_seconds(data: Measured, count: int = 10_000) -> float:
    """Time to predict `count` architectures, the best of five."""
    predictor = LatencyPredictor().fit(data.features, data.latency)
    many = np.resize(data.features, (count, data.features.shape[1]))
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
    try:
        _compare(parser.parse_args(argv))
    except UserError as error:
        print(f"bench-predictors: {error}", file=sys.stderr)
        sys.exit(2)


def _compare(options: argparse.Namespace) -> None:
    """Learn, transfer, and print both tables.

    Raises:
        UserError: A file is not of HAT's form, or a size too small to learn from.
    """
    started = time.perf_counter()
    if min(options.sizes) < MIN_SIZE:
        raise UserError(
            f"--sizes {min(options.sizes)}: give {MIN_SIZE} or more, for as many parts of "
            "cross-validation"
        )
    sets = read_folder(options.folder)
    work = jobs(sets, options.sizes, options.seeds, options.mlp_seeds, options.mlp_steps)
    few = transfer_jobs(sets, options.seeds)
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            results, found = list(pool.map(Job.run, work)), list(pool.map(TransferJob.run, few))
    else:
        results, found = [job.run() for job in work], [job.run() for job in few]
    learning, transfer = learning_rows(results), transfer_rows(found)
    predict_s = predict_seconds(sets[0])
    written = write_results(
        options.name,
        {
            "learning": learning,
            "transfer": transfer,
            "predict_10000_s": predict_s,
            "wall_s": time.perf_counter() - started,
            "results": [*results, *found],
        },
    )
    print(show(learning))
    if transfer:  # between two files of the same columns, with enough rows
        print(f"\n{show_transfer(transfer)}")
    print(f"\n10,000 architectures predicted in {predict_s:.3f} s")
    print(f"\n{written}")


if __name__ == "__main__":
    main()
