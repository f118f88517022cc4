"""Is precision worth searching together with the architecture? Four ways at the same budget.

    python -m benchmarks.policy_search --example digits --seeds 5

- `fp32`: the architecture alone.
- `int8`: three quarters of the budget for the architecture alone; the rest for subnets of its front
  with 8-bit products wherever they pay.
- `autoquantize`: the same with policies proposed by sensitivities and measured latencies.
- `joint`: architecture and policy together.

Each is judged by the hypervolume (test quality, latency, bytes) of what it found, the later ones
with the fp32 points that they paid for; the box is the same for all. With `--measured N`, the N
most different points of each front are measured whole, and these alone count. Keep the machine
idle: the table is measured too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantization import EXAMPLES
from benchmarks.results import FOLDER, number, table, write_results
from nas.config import Config, load_config
from nas.run import Run
from nas.search import hypervolume, non_dominated, search, select_front
from nas.stages.device_lab import DeviceLab, random_subnets
from nas.stages.known_table import load_predictors
from nas.stages.measure import measure_device
from nas.stages.policies import block_bytes, block_latencies, proposals, without_slow_blocks
from nas.stages.search import Objectives
from nas.stages.supernet import open_supernet, train
from search_spaces import Architecture, TransformerSpace, UserError, space_from_json

Floats = NDArray[np.float64]

SCHEMES_OF = {"digits": "[fp32, w8, w8a8, w8a8_dynamic]", "text": "[fp32, w8, w8a8, w4]"}
METHODS = ("fp32", "int8", "autoquantize", "joint")
LATER = 4
"""One in so many evaluations is for policies, where they come after the architecture."""
SMOKE = (
    "training.steps=4",
    "training.warmup_steps=1",
    "space.embed=[16]",
    "space.depth=[1, 2]",
    "space.heads=[2]",
    "space.ffn=[32, 64]",
    "latency.correction_subnets=0",
)


def main() -> int:
    """Compare the four ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--example", choices=tuple(EXAMPLES), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=200, help="evaluations of each way (200)")
    parser.add_argument("--measured", type=int, default=0, help="points of each front to measure")
    parser.add_argument("--mode", choices=("quick", "standard"), default="quick")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the configuration")
    options = parser.parse_args()
    with Run.open(configuration(options)) as run:
        comparison = Comparison(run, options.budget)
        fronts = {
            method: [comparison.front(method, seed) for seed in range(options.seeds)]
            for method in METHODS
        }
        values = comparison.judged(fronts, options.measured)
    found = hypervolumes(values)
    print(f"\n{options.example}\n{results_table(found, values)}")
    path = write_results(
        f"policy_search-{options.example}",
        {
            "budget": options.budget,
            "measured": options.measured,
            "hypervolume": found,
            "fronts": {
                method: [
                    {"architectures": [dict(arch) for arch in front], "values": rows.tolist()}
                    for front, rows in zip(fronts[method], values[method], strict=True)
                ]
                for method in METHODS
            },
        },
    )
    print(f"\n{path}", file=sys.stderr)
    return 0


def configuration(options: argparse.Namespace) -> Config:
    """The example with policies, in the directory where `benchmarks.quantization` trains it."""
    name, smoke = options.example, "-smoke" if options.smoke else ""
    return load_config(
        EXAMPLES[name],
        [
            f"output={FOLDER / 'quantization' / (name + smoke)}",
            f"space.precision={SCHEMES_OF[name]}",
            f"latency.mode={options.mode}",
            *(SMOKE if options.smoke else ()),
            *options.overrides,
        ],
    )


class Comparison:
    """A trained supernet with a measured table, and the ways to search it.

    Args:
        run: The run; what it lacks is trained and measured.
        budget: Evaluations of each way.
    """

    def __init__(self, run: Run, budget: int) -> None:
        self.run, self.budget = run, budget
        train(run)
        measure_device(run)
        self.supernet = open_supernet(run)
        predictors = load_predictors(run, self.supernet.space)
        self.space = without_slow_blocks(self.supernet.space, predictors)
        self.plain = space_from_json(
            {k: v for k, v in self.space.to_json().items() if k != "precision"}
        )
        self.objectives = Objectives(run, self.space, predictors)
        self.quality = self.objectives.evaluated[0]
        self.latencies = [f"{workload}_ms" for workload in run.config.calls]
        self.costs = [
            *block_latencies(predictors),
            block_bytes(self.space, self.objectives.workload),
        ]

    def front(self, method: str, seed: int) -> list[Architecture]:
        """What a way finds: the architectures that no other of its own dominates."""
        if method == "joint":
            uniform = self.space.uniform(5)
            initial = [*uniform, *proposals(self.supernet, self.space, uniform, self.costs)]
            return self._search(self.space, initial, self.budget, seed)
        if method == "fp32":
            return self._search(self.plain, self.plain.uniform(5), self.budget, seed)
        later = self.budget // LATER
        full = self._search(self.plain, self.plain.uniform(5), self.budget - later, seed)
        if method == "int8":
            few = self._spread(full, later)
            schemes = [name for name in self.space.precision if name.startswith("w8a8")]
            tried = [
                self.space.architecture(dict(self.supernet.space.with_scheme(arch, schemes[0])))
                for arch in few
            ]
        else:
            few = self._spread(full, max(later // 3, 1))
            tried = proposals(self.supernet, self.space, few, self.costs)[:later]
        together = list(dict.fromkeys([*full, *tried]))
        return self._best(together)

    def judged(
        self, fronts: Mapping[str, Sequence[Sequence[Architecture]]], measured: int
    ) -> dict[str, list[Floats]]:
        """Test quality, latencies and bytes of every front's points, or of those measured."""
        chosen = {
            method: [self._spread(front, measured) if measured else front for front in some]
            for method, some in fronts.items()
        }
        every = list(dict.fromkeys(a for some in chosen.values() for front in some for a in front))
        latency = {name: self.objectives.cost(every, name) for name in self.latencies}
        if measured:
            lab = DeviceLab(self.run, self.supernet.space)
            artifacts = random_subnets(lab, dict.fromkeys(lab.workloads, every))
            for workload, found in lab.measure_whole(artifacts, "Measuring the fronts").items():
                medians = [one.median_ns for one in found]
                if None in medians:
                    raise UserError("a subnet could not be measured; run the same command again")
                latency[f"{workload}_ms"] = np.array(medians, dtype=np.float64) / 1e6
        quality = [row[self.quality] for row in self.supernet.metrics(every, "test")]
        columns = [quality, *latency.values(), self.objectives.cost(every, "size_bytes")]
        rows = dict(zip(every, np.stack(columns, axis=1), strict=True))
        return {
            method: [np.array([rows[arch] for arch in front]) for front in some]
            for method, some in chosen.items()
        }

    def _search(
        self, space: TransformerSpace, initial: Sequence[Architecture], budget: int, seed: int
    ) -> list[Architecture]:
        """The front of a search, as architectures of the space with policies."""
        result = search(
            space,
            lambda some: self._validation([self._with_policy(arch) for arch in some]),
            cheap=lambda some: self._cheap([self._with_policy(arch) for arch in some]),
            budget=budget,
            seed=seed,
            initial=initial,
        )
        return [self._with_policy(result.architectures[index]) for index in result.front]

    def _with_policy(self, arch: Architecture) -> Architecture:
        if self.space.precision and not any(name.startswith("precision.") for name in arch):
            full = {name: "fp32" for name in self.space.names if name.startswith("precision.")}
            return self.space.architecture({**full, **arch})
        return arch

    def _validation(self, some: Sequence[Architecture]) -> Floats:
        found = self.supernet.metrics(some, "validation")
        return np.array([[metrics[self.quality]] for metrics in found])

    def _cheap(self, some: Sequence[Architecture]) -> Floats:
        names = [*self.latencies, "size_bytes"]
        return np.stack([self.objectives.cost(some, name) for name in names], axis=1)

    def _values(self, some: Sequence[Architecture]) -> Floats:
        return np.hstack([self._validation(some), self._cheap(some)])

    def _best(self, some: Sequence[Architecture]) -> list[Architecture]:
        return [some[index] for index in non_dominated(self._values(some))]

    def _spread(self, some: Sequence[Architecture], count: int) -> list[Architecture]:
        """At most `count` of a front that stand for it."""
        values = self._values(some)
        return [some[index] for index in select_front(values, non_dominated(values), count)]


def hypervolumes(values: Mapping[str, Sequence[Floats]]) -> dict[str, list[float]]:
    """Of each way and seed, in the box of all points."""
    every = np.vstack([rows for some in values.values() for rows in some])
    ideal, reference = every.min(axis=0), every.max(axis=0)
    return {
        method: [hypervolume(rows, ideal=ideal, reference=reference) for rows in some]
        for method, some in values.items()
    }


def results_table(
    found: Mapping[str, Sequence[float]], values: Mapping[str, Sequence[Floats]]
) -> str:
    """A line per way: mean and standard deviation over seeds, and how often `joint` was better."""
    lines = []
    for method, some in found.items():
        behind = sum(ours > other for ours, other in zip(found["joint"], some, strict=True))
        lines.append(
            [
                method,
                number(statistics.fmean(some), 4),
                number(statistics.stdev(some) if len(some) > 1 else None, 4),
                "-" if method == "joint" else f"{behind} of {len(some)}",
                number(statistics.fmean(len(rows) for rows in values[method]), 1),
            ]
        )
    return table(["search", "hypervolume", "std", "joint is better", "points"], lines)


if __name__ == "__main__":
    sys.exit(main())
