"""When workers of Ray pay: evaluations per second in this process, and with one and two workers.

Subnets of the digits example are evaluated on the validation split, in this process and on a
cluster of this host, in turn, for several rounds; then larger ones. Weights are random: time does
not depend on them. Every result is compared with that of this process.

An evaluation on a worker costs what it costs here, and an overhead; two workers share the
evaluations, and the cores of the host. Figures are ratios of neighbouring measurements, since the
machine may be busy with something else. The exit code is 1 if a worker gave other bits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from benchmarks.results import number, table, write_results
from latency.host_facts import available_cpus
from nas.executors.executor import Executor, LocalExecutor
from nas.executors.package import arithmetic, evaluate, pack, probe
from nas.executors.ray_executor import RayExecutor
from nas.tasks import build_task
from search_spaces import Architecture, VisionTransformerSpace
from supernet.checkpoint import content_hash, named_tensors
from supernet.families import build_supernet

SIZES: Mapping[str, dict[str, Any]] = {
    "digits": {"head_dim": 16, "embed": (16, 32, 64), "ffn": (32, 64, 128, 192)},
    "larger": {"head_dim": 32, "embed": (128, 192), "ffn": (256, 512)},
}
BUDGET = 300
"""Evaluations of the example's search, for the time from which on a cluster pays."""


class Subject:
    """A supernet of some size with the digits."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        task = build_task("image-classification", data="digits", image_size=8, channels=1)
        space = VisionTransformerSpace(
            image_size=8,
            channels=1,
            num_classes=10,
            patch_size=2,
            depth=(1, 2, 3, 4, 5),
            heads=(1, 2, 4),
            **sizes,
        )
        torch.manual_seed(0)
        self.space, self.task, self.model = space, task, build_supernet(space).eval()
        self.hash = content_hash(named_tensors(self.model), space.to_json())

    def local(self) -> LocalExecutor:
        """This process."""
        return LocalExecutor(lambda *what: evaluate(self.model, self.task, *what))

    def cluster(self, workers: int) -> RayExecutor:
        """So many workers on this host."""
        return RayExecutor(
            "local",
            lambda: pack(self.model, self.task, self.hash, "validation"),
            lambda: {"probe": probe(self.model, self.task, "validation"), **arithmetic()},
            workers=workers,
            cpus=1,
            timeout_s=120.0,
            local_cpus=workers,
            most=workers,
            told=lambda event, fields: None,
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=30, help="a measurement")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"cpus": len(available_cpus()), **vars(arguments)}
    rows, equal = [], True
    for name in arguments.sizes:
        subject = Subject(SIZES[name])
        rng = np.random.default_rng(0)
        archs = list(dict.fromkeys(subject.space.sample(rng) for _ in range(5000)))
        needed = 2 + 2 * arguments.rounds * arguments.evaluations
        found = measure(subject, archs[:needed], arguments.rounds)
        equal &= found["equal"]
        results[name] = found
        rows.append(
            [
                name,
                number(1e3 * found["local_s"], 1),
                *(number(found[f"speed_{workers}"], 2) for workers in (1, 2)),
                number(1e3 * found["overhead_s"], 1),
                number(found["start_s"], 1),
                number(found["saved"], 1),
            ]
        )
    header = ["subnets", "here ms", "1 worker", "2 workers", "overhead ms", "start s", "saves s"]
    print(table(header, rows))
    print(f"speed relative to this process; saves: of {BUDGET} evaluations with 2 workers")
    print(f"same bits: {'yes' if equal else 'NO'}")
    print(write_results("cluster", results))
    return 0 if equal else 1


def measure(subject: Subject, archs: Sequence[Architecture], rounds: int) -> dict[str, Any]:
    """Time all ways in turn; medians over the rounds.

    Every measurement has subnets of its own: one that ran before is quicker.
    """
    local = subject.local()
    list(local.evaluate(archs[:2], "validation"))  # the first ones are slow everywhere
    here, starts, overheads, equal = [], [], [], True
    ratios: dict[int, list[float]] = {1: [], 2: []}
    count = (len(archs) - 2) // (rounds * len(ratios))
    fresh = iter(archs[2:])
    for _ in range(rounds):
        for workers, speeds in ratios.items():
            some = list(islice(fresh, count))
            executor = subject.cluster(workers)
            try:
                starts.append(start(executor, archs[0], workers))
                on_cluster_s, found = timed(executor, some)
                alone_s, expected = timed(local, some)
            finally:
                executor.close()
            equal &= found == expected
            here.append(alone_s / count)
            speeds.append(alone_s / on_cluster_s)
            if workers == 1:
                overheads.append((on_cluster_s - alone_s) / count)
    speed = {f"speed_{workers}": statistics.median(found) for workers, found in ratios.items()}
    local_s, start_s = statistics.median(here), statistics.median(starts)
    return {
        "local_s": local_s,
        "start_s": start_s,
        "overhead_s": statistics.median(overheads),
        "saved": BUDGET * local_s * (1 - 1 / speed["speed_2"]) - start_s,
        "equal": equal,
        "ratios": {str(workers): found for workers, found in ratios.items()},
        **speed,
    }


def start(executor: RayExecutor, arch: Architecture, workers: int) -> float:
    """Seconds until all workers are ready."""
    began_s = time.monotonic()
    while executor.workers < workers:
        list(executor.evaluate([arch], "validation"))
    return time.monotonic() - began_s


def timed(
    executor: Executor, archs: Sequence[Architecture]
) -> tuple[float, dict[Architecture, Any]]:
    """Seconds for all, and what they are."""
    began_s = time.monotonic()
    found = dict(executor.evaluate(archs, "validation"))
    return time.monotonic() - began_s, found


if __name__ == "__main__":
    sys.exit(main())
