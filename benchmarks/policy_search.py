"""Is precision worth searching together with the architecture? Four ways at the same budget.

    python -m benchmarks.policy_search --example digits
    python -m benchmarks.policy_search --example digits --measured 0

- `fp32`: the architecture alone.
- `int8`: three quarters of the budget for the architecture alone; the rest for subnets of its front
  with 8-bit products wherever they pay, and 8-bit weights elsewhere.
- `autoquantize`: the same with policies proposed by sensitivities and measured latencies.
- `joint`: architecture and policy together.

Each is judged by the hypervolume (test quality, latency, bytes) of what it found, the later ones
with the fp32 points that they paid for; the box is the same for all. The points of each front that
dominate the most by validation quality and predicted latency (`--measured`) are measured whole, all
together, and these alone count; those of `joint` in the same sessions as the same subnets in fp32,
and again in standard mode where they seem slower than these.
With `--measured 0`, all points count with their predicted latencies. The exit code is 1 if another
way leads in a seed, or if a policy of `joint` is slower than fp32 or its file no smaller.

The supernet is trained and the table measured where they are not there yet, under
runs/benchmarks/quantization/: keep the machine idle.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.policy_judgement import (
    SAME,
    Floats,
    Judged,
    Twin,
    at_equal_quality,
    hypervolumes,
    most_volume,
)
from benchmarks.policy_methods import METHODS, Methods
from benchmarks.quantization import EXAMPLES
from benchmarks.results import FOLDER, number, table, write_results
from nas.config import Config, load_config
from nas.run import Run
from nas.stages.measure import measure_device
from nas.stages.supernet import open_supernet, train
from search_spaces import Architecture

PRECISION = "[fp32, w8, w8a8, w4]"
BUDGET = {"digits": 200, "text": 120}
MEASURED = {"digits": 20, "text": 10}
SMOKE = (
    "training.steps=4",
    "training.warmup_steps=1",
    "space.embed=[16]",
    "space.depth=[1, 2]",
    "space.heads=[2]",
    "space.ffn=[32, 64]",
    "latency.correction_subnets=0",
)

Fronts = Mapping[str, Sequence[Sequence[Architecture]]]


def main() -> int:
    """Compare the four ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--example", choices=tuple(EXAMPLES), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, help="evaluations of each way (digits 200, text 120)")
    parser.add_argument(
        "--measured", type=int, help="points of each front to measure (digits 20, text 10)"
    )
    parser.add_argument("--mode", choices=("quick", "standard"), default="quick")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the configuration")
    options = parser.parse_args()
    budget = BUDGET[options.example] if options.budget is None else options.budget
    measured = MEASURED[options.example] if options.measured is None else options.measured
    with Run.open(configuration(options)) as run:
        train(run)
        measure_device(run)
        methods = Methods(run, open_supernet(run), budget)
        fronts = {
            method: [methods.front(method, seed) for seed in range(options.seeds)]
            for method in METHODS
        }
        found = judge(methods, fronts, measured)
    path = write_results(
        f"policy_search-{options.example}",
        {"budget": budget, "measured": measured, "mode": options.mode, **found},
    )
    print(f"\n{options.example}, {budget} evaluations a way, {options.mode} timing\n")
    print(report(found))
    print(f"\n{path}", file=sys.stderr)
    return 0 if found["ok"] else 1


def configuration(options: argparse.Namespace) -> Config:
    """The example with policies, in the directory where `benchmarks.quantization` trains it."""
    name, smoke = options.example, "-smoke" if options.smoke else ""
    return load_config(
        EXAMPLES[name],
        [
            f"output={FOLDER / 'quantization' / (name + smoke)}",
            f"space.precision={PRECISION}",
            f"latency.mode={options.mode}",
            *(SMOKE if options.smoke else ()),
            *options.overrides,
        ],
    )


def judge(methods: Methods, fronts: Fronts, measured: int) -> dict[str, Any]:
    """What stands in the results file.

    Args:
        methods: Gives qualities and costs.
        fronts: By method, for each seed.
        measured: Points of each front that count, as measured; 0 for all, as predicted.
    """
    chosen = fronts
    if measured:
        places = most_volume(
            {method: [methods.values(front) for front in some] for method, some in fronts.items()},
            measured,
        )
        chosen = {
            method: [
                [front[place] for place in found]
                for front, found in zip(fronts[method], some, strict=True)
            ]
            for method, some in places.items()
        }
    largest = methods.supernet.space.uniform(5)[-1]
    reference = methods.uniform(largest)
    equal = [at_equal_quality(methods, front, reference) for front in fronts["joint"]]
    twins: list[Twin] = []

    def values(some: Sequence[Architecture]) -> Floats:
        return judged.values(some) if judged else methods.values(some, "test")

    judged = None
    if measured:
        points = [one for some in chosen.values() for front in some for one in front]
        best = [one for found in equal for one in found.values()]
        joint = [one for front in chosen["joint"] for one in front]
        judged = Judged(methods, [*points, *best, largest, reference], joint)
        twins = judged.twins
    rows = {method: [values(front) for front in some] for method, some in chosen.items()}
    volumes = hypervolumes(rows)
    joint_leads = {
        method: sum(ours > other for ours, other in zip(volumes["joint"], some, strict=True))
        for method, some in volumes.items()
        if method != "joint"
    }
    columns = (methods.quality, *methods.names)
    return {
        "columns": columns,
        "hypervolume": volumes,
        "joint_leads": joint_leads,
        "largest": {
            name: dict(zip(columns, values([one])[0].tolist(), strict=True))
            for name, one in (("fp32", largest), ("int8", reference))
        },
        "equal_quality": [
            {
                cost: dict(zip(columns, values([one])[0].tolist(), strict=True))
                for cost, one in found.items()
            }
            for found in equal
        ],
        "twins": [
            {
                "workload": twin.workload,
                "architecture": dict(twin.architecture),
                "ratio": twin.ratio,
                "half_width": twin.half_width,
                "slower": twin.slower,
                "size_bytes": twin.size_bytes,
                "file_bytes": twin.file_bytes,
                "twin_size_bytes": twin.twin_size_bytes,
                "twin_file_bytes": twin.twin_file_bytes,
                "larger": twin.larger,
                "same_graph": twin.same_graph,
                "again": twin.again,
            }
            for twin in twins
        ],
        "unstable": judged.unstable if judged else 0,
        "fronts": {
            method: [
                {"architectures": [dict(arch) for arch in front], "values": found.tolist()}
                for front, found in zip(chosen[method], rows[method], strict=True)
            ]
            for method in METHODS
        },
        "ok": all(count == len(equal) for count in joint_leads.values())
        and not any(twin.slower or twin.larger for twin in twins),
    }


def report(found: Mapping[str, Any]) -> str:
    """Three paragraphs: hypervolumes, equal quality, twins."""
    parts = [volume_table(found), equality_table(found)]
    if found["twins"]:
        parts.append(twin_lines(found["twins"]))
        parts.append(f"{found['unstable']} measurements did not meet their interval")
    return "\n\n".join(parts)


def volume_table(found: Mapping[str, Any]) -> str:
    """A line per way: median over seeds, each seed, and how often `joint` was better."""
    lines = []
    for method, some in found["hypervolume"].items():
        leads = found["joint_leads"].get(method)
        points = [len(front["values"]) for front in found["fronts"][method]]
        lines.append(
            [
                method,
                number(statistics.median(some), 4),
                *(number(value, 4) for value in some),
                "-" if leads is None else f"{leads} of {len(some)}",
                number(statistics.fmean(points), 1),
            ]
        )
    seeds = [f"seed {seed}" for seed in range(len(found["hypervolume"]["joint"]))]
    return table(["hypervolume", "median", *seeds, "joint leads", "points"], lines)


def equality_table(found: Mapping[str, Any]) -> str:
    """A line per seed: joint's subnets not worse on validation than the largest in int8."""
    quality, *costs = found["columns"]
    base = found["largest"]["int8"]
    lines = []
    for seed, best in enumerate(found["equal_quality"]):
        line = [f"seed {seed}"]
        for cost in costs:
            one = best.get(cost)
            line += [
                number(one and base[cost] / one[cost], 2),
                number(one and one[quality], 4),
            ]
        lines.append(line)
    times = [
        [best[cost] and base[cost] / best[cost][cost] for best in found["equal_quality"] if best]
        for cost in costs
    ]
    median = [number(statistics.median(some) if some else None, 2) for some in times]
    lines.append(["median", *(cell for one in median for cell in (one, ""))])
    header = [f"against int8 ({quality} {base[quality]:.4f})"]
    for cost in costs:
        header += [f"times less {cost}", quality]
    return table(header, lines)


def twin_lines(twins: Sequence[Mapping[str, Any]]) -> str:
    """The policies of `joint` against the same subnets in fp32."""
    lines = []
    for workload in dict.fromkeys(twin["workload"] for twin in twins):
        for same in (False, True):
            some = [
                twin
                for twin in twins
                if twin["workload"] == workload and twin["same_graph"] == same
            ]
            if not some:
                continue
            worst = max(some, key=lambda twin: twin["ratio"])
            verdict = (
                "the graph is the same: noise"
                if same
                else f"{sum(twin['slower'] for twin in some)} are slower beyond that and "
                f"{SAME:.0%}, {sum(twin['again'] for twin in some)} of all were measured again"
            )
            lines.append(
                f"{workload}: {len(some)} policies of joint with 8-bit "
                f"{'weights alone' if same else 'products'} take "
                f"{statistics.median(twin['ratio'] for twin in some):.3f} of the time of their "
                f"fp32 twins (median), at most {worst['ratio']:.3f} (95 % interval "
                f"+-{100 * worst['half_width']:.1f} %); {verdict}"
            )
    shares = [twin["file_bytes"] / twin["twin_file_bytes"] for twin in twins]
    larger = sum(twin["larger"] for twin in twins)
    return "\n".join(
        [
            *lines,
            f"their files have {min(shares):.2f} to {max(shares):.2f} of the bytes; "
            f"{larger} that claim to be smaller are not",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
