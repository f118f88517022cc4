"""Low bits, with and without each remedy: what each earns.

    python -m benchmarks.low_bits                     # the language model
    python -m benchmarks.low_bits --example digits

From the example's trained supernet (trained where it is not there yet, under
runs/benchmarks/quantization/), three tables of what uniform subnets lose on the test split against
the same subnet in fp32, in thousandths of the quality (bits per byte, or nats of cross-entropy):
the largest, the smallest, and the mean of these and random ones.

1. `w8a8` and attention's softmax with each remedy of `benchmarks.remedies`, which need no training.
2. `w4` rounded in each of the ways of `supernet.integers`.
3. After as many further steps in each way of `benchmarks.aware`: the fp32 quality, and the losses.
   What is trained is kept under runs/benchmarks/quantization/; delete it to train again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.aware import TRAININGS, StatisticalLinear
from benchmarks.quantization import EXAMPLES, configuration
from benchmarks.remedies import (
    SOFTMAXES,
    STATIC_REMEDIES,
    ClippedGroups,
    Remedy,
    RoundedProbabilities,
    remedied,
)
from benchmarks.results import number, table, write_results
from nas.config import Config
from nas.run import Run
from nas.stages.supernet import (
    CALIBRATION_BATCHES,
    TrainedSupernet,
    evaluate,
    new_trainer,
    open_supernet,
    train,
)
from search_spaces import TransformerSpace, space_from_json
from search_spaces.schemes import FULL
from supernet.families import Supernet, build_supernet
from supernet.integers import ROUNDINGS, Rounding
from supernet.training import Trainer

QUALITY = {"digits": "cross_entropy", "text": "bits_per_byte"}
SCHEMES_TRAINED = ("fp32", "w4")
"""Schemes that policies are drawn from in training."""
SEED = 20261121

Row = dict[str, Any]


def main() -> int:
    """Make the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--example", choices=tuple(EXAMPLES), default="text")
    parser.add_argument("--subnets", type=int, default=3, help="random ones (3)")
    parser.add_argument("--part", choices=("untrained", "trained"), help="one only")
    parser.add_argument(
        "--training", action="append", choices=tuple(TRAININGS), help="only this; may be repeated"
    )
    parser.add_argument("--steps", type=int, default=200, help="of each training (200)")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the configuration")
    options = parser.parse_args()
    options.check, options.mode = "low-bits", "quick"
    config = configuration(options.example, options)
    with Run.open(config) as run:
        train(run)
        bench = Bench(open_supernet(run), QUALITY[options.example], options.subnets)
        rows = []
        if options.part != "trained":
            rows += [*bench.remedies(), *bench.roundings()]
        if options.part != "untrained":
            names = options.training or tuple(TRAININGS)
            rows += bench.trainings(config, names, options.steps, run.directory.path)
        print(f"{options.example}\n{bench.table(rows)}")
    name = "-".join(["low-bits", options.example, *([options.part] if options.part else [])])
    path = write_results(name, {"rows": rows})
    print(f"\n{path}", file=sys.stderr)
    return 0


class Bench:
    """Evaluates the same subnets again and again, beside the same in fp32.

    Args:
        supernet: Trained.
        quality: The metric.
        count: Random subnets, beside the largest and the smallest.
    """

    def __init__(self, supernet: TrainedSupernet, quality: str, count: int) -> None:
        self.supernet, self.quality = supernet, quality
        self.model, self.task, self.space = supernet.model, supernet.task, supernet.space
        rng = np.random.default_rng(SEED)
        drawn = [self.space.largest, self.space.smallest]
        drawn += [self.space.sample(rng) for _ in range(count)]
        self.subnets = [self.space.with_scheme(arch, FULL) for arch in drawn]
        batches = islice(self.task.split("train"), CALIBRATION_BATCHES)
        self.batches = [inputs for inputs, _ in batches]
        self.full = self.inside(FULL)

    def inside(self, scheme: str) -> list[float]:
        """Quality of each subnet in the supernet."""
        uniform = [self.space.with_scheme(arch, scheme) for arch in self.subnets]
        return [evaluate(self.model, self.task, arch, "test")[self.quality] for arch in uniform]

    def outside(self, remedy: Remedy, reparametrized: bool = False) -> list[float]:
        """Quality of each subnet with a remedy."""
        return [
            self._quality(remedied(self.model, arch, self.batches, remedy, reparametrized))
            for arch in self.subnets
        ]

    @torch.inference_mode()
    def _quality(self, plain: nn.Module) -> float:
        def forward(inputs: Tensor) -> Tensor:
            outputs = plain(inputs)
            logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
            return logits

        return self.task.metrics(forward, "test")[self.quality]

    def row(self, name: str, found: Sequence[float]) -> Row:
        """Losses of all subnets, a thousandth each."""
        losses = [1000 * (one - full) for one, full in zip(found, self.full, strict=True)]
        print(name, *(f"{loss:.2f}" for loss in losses), file=sys.stderr)
        return {"name": name, "losses": losses, "fp32": list(self.full)}

    def remedies(self) -> list[Row]:
        """Each remedy that needs no training."""
        rows = []
        for name, (remedy, first) in STATIC_REMEDIES.items():
            rows.append(self.row(f"w8a8: {name}", self.outside(remedy, first)))
        for name, rounded in SOFTMAXES.items():
            with RoundedProbabilities(rounded):
                rows.append(self.row(name, self.outside(lambda linear, _: linear)))
        return rows

    def roundings(self, roundings: Sequence[Rounding] = ROUNDINGS, prefix: str = "") -> list[Row]:
        """4-bit weights, rounded in each way."""
        rows = []
        if not prefix:
            rows.append(self.row("w4: nearest, groups clipped", self.outside(ClippedGroups)))
        for rounding in roundings:
            self.model.calibrate(self.batches, rounding)
            rows.append(self.row(f"{prefix}w4: {rounding}", self.inside("w4")))
        return rows

    def trainings(
        self, config: Config, names: Sequence[str], steps: int, folder: Path
    ) -> list[Row]:
        """Each way to train on, from the same weights."""
        rows = []
        start = {name: value.clone() for name, value in self.model.state_dict().items()}
        for name in names:
            aware, around = TRAININGS[name]
            trained = build_supernet(self._space(()))
            trained.load_state_dict(start)
            path = folder / f"{name}-{steps}.safetensors"
            trainer = self.trainer(trained, config, steps, aware, path)
            with around(trainer, trained):
                seconds = trainer.run().seconds
            self.model.load_state_dict(trained.state_dict())
            self.full = self.inside(FULL)
            some = self.roundings(("nearest", "compensated"), f"{name}, ")
            some.append(self.row(f"{name}, w8a8", self.inside("w8a8")))
            if "statistical" in name:
                some.append(self.row(f"{name}, w4: statistical", self.outside(StatisticalLinear)))
            rows += [row | {"seconds": seconds} for row in some]
        return rows

    def _space(self, precision: Sequence[str]) -> TransformerSpace:
        space = space_from_json(self.space.to_json() | {"precision": list(precision)})
        assert isinstance(space, TransformerSpace)
        return space

    def trainer(
        self, model: Supernet, config: Config, steps: int, aware: bool, path: Path
    ) -> Trainer:
        """Goes on from the model's weights, with batches that follow those of the training."""
        first = config.training.steps
        return new_trainer(
            config,
            self.task,
            model,
            batch=lambda step: self.task.batch(first + step),
            steps=0,
            warmup_steps=0,
            checkpoint_path=path,
            policies=self._space(SCHEMES_TRAINED if aware else ()),
            policy_steps=steps,
        )

    def table(self, rows: Sequence[Row]) -> str:
        """A line per row."""
        lines = []
        for row in rows:
            losses, full = row["losses"], row["fp32"]
            lines.append(
                [
                    row["name"],
                    *(number(value, 4) for value in (full[0], full[1], float(np.mean(full)))),
                    *(number(value, 1) for value in (losses[0], losses[1])),
                    number(float(np.mean(losses)), 1),
                    number(float(np.mean(full) + np.mean(losses) / 1000), 4),
                    number(row.get("seconds"), 0),
                ]
            )
        header = ["remedy", "fp32 largest", "smallest", "mean", "loss largest", "smallest", "mean"]
        return table([*header, "mean quality", "training s"], lines)


if __name__ == "__main__":
    sys.exit(main())
