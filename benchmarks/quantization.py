"""Precision policies: does the simulation tell what the runtime gives, and which scheme is fast?

    python -m benchmarks.quantization --check agreement
    python -m benchmarks.quantization --check speed

`agreement` compares, on the test split, subnets as they run in the supernet with their exports in
onnxruntime: the largest under each scheme, and random ones with random policies. The exit code is 1
if a quality is further apart than 0.3 points of accuracy or 0.5 % of bits per byte, or a logit than
its tolerance. `speed` measures the largest subnet under each scheme, whole, for several batches and
lengths; keep the machine idle meanwhile. What low bits lose, and remedies, are in
`benchmarks.low_bits`.

The examples' supernets are trained where they are not there yet, under
runs/benchmarks/quantization/; policies play no part in that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.results import FOLDER, number, percent, table, write_results
from latency.cpu_session import cpu_session
from latency.graphs import GraphLibrary
from latency.policy import MEAN_TOLERANCE, tolerance
from nas.config import Config, load_config
from nas.run import Run
from nas.stages.device_lab import DeviceLab, random_subnets
from nas.stages.exporter import batch_feeds
from nas.stages.supernet import (
    TrainedSupernet,
    build_space,
    open_supernet,
    train,
)
from search_spaces import Architecture
from search_spaces.schemes import FULL, SCHEMES

EXAMPLES = {"digits": Path("examples/digits.yaml"), "text": Path("examples/text.yaml")}
LIMITS = {"error": 0.003, "bits_per_byte": 0.005}
"""How far qualities may be apart: points of accuracy, and a share of the bits per byte."""
EXACT = 1e-3
"""Allowed difference of a logit where nothing is rounded on the way, in units of 1 + |logit|."""
SAMPLE_SEED = 20261121

WORKLOADS = {
    "digits": "{b1: {batch: 1}, b8: {batch: 8}, b64: {batch: 64}}",
    "text": "{decode: {past: 127}, s16: {sequence: 16}, s128: {sequence: 128}}",
}
"""What `speed` measures."""
SMOKE = (
    "training.steps=4",
    "training.warmup_steps=1",
    "space.embed=[32]",
    "space.depth=[1]",
    "space.ffn=[64]",
)


def main() -> int:
    """Run the checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", choices=("agreement", "speed"), default="agreement")
    parser.add_argument("--example", action="append", choices=tuple(EXAMPLES), dest="examples")
    parser.add_argument("--subnets", type=int, default=20, help="random ones (20)")
    parser.add_argument("--mode", choices=("quick", "standard"), default="standard")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of every configuration")
    options = parser.parse_args()
    found, good = {}, True
    for name in options.examples or EXAMPLES:
        config = configuration(name, options)
        if options.check == "agreement":
            rows = agreement(config, options.subnets)
            good = good and all(row["ok"] for row in rows)
            print(f"\n{name}\n{agreement_table(rows)}")
        else:
            rows = speed(config)
            print(f"\n{name}\n{speed_table(rows)}")
        found[name] = rows
    path = write_results(f"quantization-{options.check}", found)
    print(f"\n{path}", file=sys.stderr)
    return 0 if good else 1


def configuration(name: str, options: argparse.Namespace) -> Config:
    """An example's configuration with all schemes, in a directory of the benchmark's own."""
    smoke = "-smoke" if options.smoke else ""
    overrides = [
        f"output={FOLDER / 'quantization' / (name + smoke)}",
        f"space.precision=[{', '.join(SCHEMES)}]",
        f"latency.mode={options.mode}",
    ]
    if options.check == "agreement":
        overrides.append("space.precision_ends=[stem, head]")
    if options.check == "speed":
        quality = "error" if name == "digits" else "bits_per_byte"
        overrides += [f"workloads={WORKLOADS[name]}", f"search.objectives=[{quality}]"]
    smaller = SMOKE if options.smoke else ()
    return load_config(EXAMPLES[name], [*overrides, *smaller, *options.overrides])


def agreement(config: Config, count: int) -> list[dict[str, Any]]:
    """Quality and logits in the supernet and in the runtime, a row per subnet."""
    rows = []
    with Run.open(config) as run:
        train(run)
        supernet = open_supernet(run)
        space = supernet.space
        library = GraphLibrary()
        rng = np.random.default_rng(SAMPLE_SEED)
        uniform = {name: space.with_scheme(space.largest, name) for name in SCHEMES}
        for name, arch in uniform.items():
            rows.append(compare(supernet, library, arch) | {"policy": name})
        for _ in range(count):
            arch = space.sample(rng)
            rows.append(compare(supernet, library, arch) | {"policy": "random"})
    return rows


def compare(supernet: TrainedSupernet, library: GraphLibrary, arch: Architecture) -> dict[str, Any]:
    """One subnet on the test split: metrics both ways, and the largest difference of a logit."""
    network = supernet.model.extract(arch).network()
    model = library.assemble(network).SerializeToString()
    session = cpu_session(model, threads=1)
    worst, excess, means = 0.0, 0.0, []
    allowed = max(EXACT, tolerance(supernet.space.schemes(arch)))

    @torch.inference_mode()
    def forward(inputs: Tensor) -> NDArray[Any]:
        nonlocal worst, excess
        logits: NDArray[Any] = session.run(["logits"], batch_feeds(network, inputs))[0]
        expected = supernet.model(inputs, arch).numpy()
        worst = max(worst, float(np.abs(logits - expected).max()))
        relative = np.abs(logits - expected) / (1 + np.abs(expected))
        excess = max(excess, float(relative.max()) / allowed)
        means.append(float(relative.mean()))
        return logits

    runtime = supernet.task.metrics(forward, "test")
    (simulated,) = supernet.metrics([arch], "test")
    quality = supernet.task.quality
    gap = runtime[quality] - simulated[quality]
    if quality != "error":
        gap /= simulated[quality]
    return {
        "architecture": dict(arch),
        "quality": quality,
        "simulated": simulated[quality],
        "runtime": runtime[quality],
        "gap": gap,
        "worst_logit": worst,
        "mean_difference": float(np.mean(means)),
        "file_bytes": len(model),
        "size_bytes": supernet.space.cost(arch).size_bytes,
        "ok": abs(gap) <= LIMITS[quality] and excess <= 1 and max(means) <= MEAN_TOLERANCE,
    }


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per scheme, and one for all random policies."""
    lines = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        some = [row for row in rows if row["policy"] == policy]
        digits = 4 if some[0]["quality"] == "bits_per_byte" else 3
        one = some[0]
        lines.append(
            [
                policy,
                str(len(some)),
                number(one["simulated"], digits) if len(some) == 1 else "-",
                number(one["runtime"], digits) if len(some) == 1 else "-",
                percent(max(abs(row["gap"]) for row in some), 3),
                f"{max(row['worst_logit'] for row in some):.1e}",
                f"{max(row['mean_difference'] for row in some):.1e}",
                str(one["size_bytes"]) if len(some) == 1 else "-",
                str(one["file_bytes"]) if len(some) == 1 else "-",
                "yes" if all(row["ok"] for row in some) else "NO",
            ]
        )
    header = ["policy", "subnets", "simulated", "runtime", "largest gap", "worst logit", "mean"]
    return table([*header, "weight bytes", "file bytes", "agrees"], lines)


def speed(config: Config) -> list[dict[str, Any]]:
    """Measured latency of the largest subnet under each scheme and workload."""
    with Run.open(config) as run:
        lab = DeviceLab(run, build_space(config))
        space = lab.space
        names = list(SCHEMES)[::-1]
        chosen = [space.with_scheme(space.largest, name) for name in names]
        artifacts = random_subnets(lab, dict.fromkeys(lab.workloads, chosen))
        found = lab.measure_whole(artifacts, "Measuring the largest subnet")
    return [
        {
            "workload": workload,
            "scheme": name,
            "median_ns": one.median_ns,
            "low_ns": one.low_ns,
            "high_ns": one.high_ns,
            "sessions": one.sessions,
            "status": one.status,
        }
        for workload, results in found.items()
        for name, one in zip(names, results, strict=True)
    ]


def speed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds by workload, and how many times as fast as fp32."""
    lines = []
    full = {row["workload"]: row["median_ns"] for row in rows if row["scheme"] == FULL}
    for row in rows:
        base, own = full[row["workload"]], row["median_ns"]
        times = base / own if base and own else None
        milliseconds = None if own is None else own / 1e6
        lines.append(
            [
                row["workload"],
                row["scheme"],
                number(milliseconds, 4),
                number(times, 2),
                row["status"],
            ]
        )
    return table(["workload", "scheme", "ms", "times fp32", "status"], lines)


if __name__ == "__main__":
    sys.exit(main())
