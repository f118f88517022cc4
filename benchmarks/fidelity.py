"""Quality of a subnet as it lies in the supernet, against the same model trained alone.

Five uniform sizes with several seeds, and random subnets spread over MACs with one: how well does
the supernet rank what training alone would give? Alone means: a plain module of its own with fresh
weights, and the same batches in the same order, number of steps, schedule, optimizer, clipping,
label smoothing and dropout that the largest subnet has. The split of the data is that of the first
seed for every seed; the seed draws weights, order, augmentation and the sandwich's subnets.

Every finished model is kept under runs/benchmarks/fidelity/ by its settings: interrupted, the
benchmark goes on from there, and attempts that differ only in what a single model has no part in
(distillation, random subnets) share the models that were trained alone:

    python -m benchmarks.fidelity
    python -m benchmarks.fidelity --distillation alpha --name alpha
    python -m benchmarks.fidelity --name four training.random_subnets=4
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.results import FOLDER, number, percent, table, write_results
from nas.atomic import read_json, write_json
from nas.config import Config, load_config
from nas.run import Run
from nas.stages.supernet import build_space, open_supernet, open_task, train
from nas.tasks import SplitName, Task
from predictors.accuracy import kendall_tau
from search_spaces import Architecture, UserError, VisionTransformerSpace, sample_by_cost
from supernet.optimizer import WeightAverage, build_adamw
from supernet.precision import autocast_context, resolve_precision
from supernet.schedule import warmup_cosine
from supernet.vit import VisionTransformer

SPLITS: tuple[SplitName, ...] = ("validation", "test")
METRICS = ("error", "cross_entropy")
SAMPLE_SEED = 20260102
SUPERNET_ONLY = {
    "distillation",
    "random_subnets",
    "sampling",
    "compile",
    "checkpoint_every_s",
    "log_every",
    "threads",
}
"""Settings that a model trained alone does not depend on (threads: but for the last bits)."""

SMOKE = (
    "training.steps=6",
    "training.warmup_steps=2",
    "space.embed=[16, 32]",
    "space.depth=[1, 2]",
    "space.heads=[1, 2]",
    "space.ffn=[32, 64]",
)

Qualities = dict[str, dict[str, float]]
"""Metrics by split."""


def digest(value: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed and the split of the original one."""
    split_seed = config.seed if config.task.split_seed is None else config.task.split_seed
    task = config.task.model_copy(update={"split_seed": split_seed})
    return config.model_copy(update={"seed": seed, "task": task})


def in_supernet(
    config: Config, folder: Path, architectures: Sequence[Architecture]
) -> list[Qualities]:
    """Qualities of subnets in the supernet of this seed, which is trained if it is not there."""
    settings = config.model_dump(mode="json", include={"seed", "task", "space", "training"})
    output = folder / "supernets" / digest(settings)
    with Run.open(config.model_copy(update={"output": str(output)})) as run:
        train(run)
        supernet = open_supernet(run)
        found = {split: supernet.metrics(architectures, split) for split in SPLITS}
    return [{split: found[split][index] for split in SPLITS} for index in range(len(architectures))]


def alone(
    config: Config, folder: Path, task: Task, arch: Architecture, *, dropout: float
) -> Qualities:
    """Qualities of a subnet's plain model, trained alone, which is done once."""
    facts = config.model_dump(mode="json", include={"seed", "task"})
    facts["space"] = config.space.model_dump(include={"patch_size", "pooling", "head_dim"})
    facts["training"] = config.training.model_dump(mode="json", exclude=SUPERNET_ONLY)
    facts |= {"architecture": dict(arch), "dropout": dropout}
    path = folder / "alone" / f"{digest(facts)}.json"
    if not path.exists():
        started_s = time.monotonic()
        model = train_alone(config, task, arch, dropout=dropout)
        with torch.inference_mode():
            metrics = {split: task.metrics(model, split) for split in SPLITS}
        seconds = time.monotonic() - started_s
        write_json(path, {"schema": 1, "settings": facts, "metrics": metrics, "seconds": seconds})
        print(f"alone, seed {config.seed}, {arch.key}: {seconds:.0f} s", file=sys.stderr)
    qualities: Qualities = read_json(path)["metrics"]
    return qualities


def train_alone(
    config: Config, task: Task, arch: Architecture, *, dropout: float
) -> VisionTransformer:
    """Train a plain model as the supernet trains its largest subnet."""
    space, settings = vision_space(config), config.training
    subnet = space.subnet(arch)
    torch.manual_seed(config.seed)
    model = VisionTransformer(space, embed=subnet.embed, layers=subnet.layers).train()
    add_dropout(model, dropout)
    optimizer = build_adamw(
        model, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
    )
    average = None
    if settings.ema is not None:
        average = WeightAverage(list(model.parameters()), settings.ema)
    device = torch.device("cpu")
    autocast = autocast_context(resolve_precision(settings.precision, device), device)
    for step in range(settings.steps):
        inputs, targets = task.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(
                step,
                steps=settings.steps,
                warmup_steps=settings.warmup_steps,
                learning_rate=settings.learning_rate,
            )
        with autocast():
            loss = F.cross_entropy(
                model(inputs).float(), targets, label_smoothing=settings.label_smoothing
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(step)
    if average is not None:
        average.apply()
    return model.eval()


def add_dropout(model: VisionTransformer, dropout: float) -> None:
    """Drop block outputs while training, where the supernet's largest subnet does."""

    def drop(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        return F.dropout(output, dropout, module.training)

    for name, module in model.named_modules():
        if dropout and name.endswith((".out", ".down")):
            module.register_forward_hook(drop)


def vision_space(config: Config) -> VisionTransformerSpace:
    """The space of the configuration.

    Raises:
        UserError: It is of another family.
    """
    space = build_space(config)
    if not isinstance(space, VisionTransformerSpace):
        raise UserError(f"{config.name} has no vision transformers; give --config one that has")
    return space


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for the error of one value."""
    if len(values) < 2:
        return values[0], math.nan
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The values of all seeds with mean and standard error, as JSON."""
    mean, error = mean_and_error(values)
    return {"mean": mean, "se": error, "values": list(values)}


def pair(first: Sequence[Qualities], second: Sequence[Qualities]) -> dict[str, Any]:
    """In the supernet, alone, and the difference seed by seed, by split and metric."""
    result: dict[str, Any] = {}
    for split in SPLITS:
        for metric in METRICS:
            inside = [quality[split][metric] for quality in first]
            outside = [quality[split][metric] for quality in second]
            count = min(len(inside), len(outside))
            result[f"{split}_{metric}"] = {
                "supernet": spread(inside),
                "alone": spread(outside),
                "gap": spread([inside[i] - outside[i] for i in range(count)]),
            }
    return result


def taus(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Kendall's tau between supernet and alone over subnets, by split and metric of each side."""
    result = {}
    for split in SPLITS:
        for inside in METRICS:
            for outside in METRICS:
                result[f"{split}: supernet {inside}, alone {outside}"] = kendall_tau(
                    [p[f"{split}_{inside}"]["supernet"]["mean"] for p in pairs],
                    [p[f"{split}_{outside}"]["alone"]["mean"] for p in pairs],
                )
    return result


def seed_taus(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The same between the first two seeds of the models alone: what noise leaves to be had."""
    return {
        f"{split}: alone {metric}, two seeds": kendall_tau(
            *([p[f"{split}_{metric}"]["alone"]["values"][seed] for p in pairs] for seed in (0, 1))
        )
        for split in SPLITS
        for metric in METRICS
    }


def show(names: Sequence[str], pairs: Sequence[Mapping[str, Any]], macs: Sequence[int]) -> str:
    """A row per subnet."""
    header = ["subnet", "kMACs"]
    for split in SPLITS:
        header += [f"{split} error: supernet", "alone", "gap"]
    header += ["test nats: supernet", "alone"]
    rows = []
    for name, found, count in zip(names, pairs, macs, strict=True):
        row = [name, f"{count / 1e3:.0f}"]
        for split in SPLITS:
            for side in ("supernet", "alone", "gap"):
                value = found[f"{split}_error"][side]
                row.append(f"{percent(value['mean'])} +- {percent(value['se'])}")
        for side in ("supernet", "alone"):
            row.append(number(found["test_cross_entropy"][side]["mean"], 4))
        rows.append(row)
    return table(header, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per subnet, and Kendall's tau."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="examples/digits.yaml")
    parser.add_argument("--steps", type=int, help="instead of the configuration's")
    parser.add_argument("--threads", type=int, help="of training; all by default")
    parser.add_argument("--distillation", help="kl, alpha or none")
    parser.add_argument("--seeds", type=int, default=3, help="of the uniform sizes")
    parser.add_argument("--sizes", type=int, default=5, help="uniform sizes")
    parser.add_argument("--random", type=int, default=12, help="random subnets")
    parser.add_argument(
        "--random-seeds",
        type=int,
        default=1,
        help="of the random subnets; from 2 on, tau between seeds of the models alone is shown",
    )
    parser.add_argument(
        "--alone-dropout", type=float, help="instead of the dropout of the largest subnet"
    )
    parser.add_argument("--name", help="writes fidelity-NAME.json, to compare attempts")
    parser.add_argument("--smoke", action="store_true", help="a tiny run, to see that it runs")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for `nas run`")
    options = parser.parse_args(argv)
    name = f"fidelity-{options.name}" if options.name else "fidelity"
    folder, overrides = FOLDER / "fidelity", list(options.overrides)
    if options.smoke:
        name, folder = "fidelity-smoke", FOLDER / "fidelity-smoke"
        shutil.rmtree(folder, ignore_errors=True)
        overrides = [*SMOKE, *overrides]
        options.seeds, options.sizes, options.random = 2, 2, 3
    for key in ("steps", "threads", "distillation"):
        if getattr(options, key) is not None:
            overrides.append(f"training.{key}={getattr(options, key)}")
    config = load_config(options.config, overrides)
    dropout = config.training.dropout if options.alone_dropout is None else options.alone_dropout
    seeds = [config.seed + offset for offset in range(max(options.seeds, options.random_seeds))]

    space = vision_space(config)
    uniform = space.uniform(options.sizes)
    drawn = sample_by_cost(
        space,
        lambda arch: space.cost(arch).macs,
        options.random,
        np.random.default_rng(SAMPLE_SEED),
    )
    architectures = [*uniform, *drawn]
    wanted = [options.seeds] * len(uniform) + [options.random_seeds] * len(drawn)
    inside: list[list[Qualities]] = [[] for _ in architectures]
    outside: list[list[Qualities]] = [[] for _ in architectures]
    for index, seed in enumerate(seeds):
        seeded = with_seed(config, seed)
        # Sets the number of threads as well.
        for place, quality in enumerate(in_supernet(seeded, folder, architectures)):
            if index < wanted[place]:
                inside[place].append(quality)
        task = open_task(seeded)
        for place, arch in enumerate(architectures):
            if index < wanted[place]:
                outside[place].append(alone(seeded, folder, task, arch, dropout=dropout))

    pairs = [pair(first, second) for first, second in zip(inside, outside, strict=True)]
    macs = [space.cost(arch).macs for arch in architectures]
    names = [f"uniform-{index}" for index in range(len(uniform))]
    names += [f"random-{index}" for index in range(len(drawn))]
    rank = taus(pairs[len(uniform) :])
    if options.random_seeds > 1:
        rank |= seed_taus(pairs[len(uniform) :])
    written = write_results(
        name,
        {
            "training": config.training.model_dump(mode="json"),
            "alone_dropout": dropout,
            "seeds": seeds[: options.seeds],
            "kendall_tau": rank,
            "subnets": [
                {
                    "name": label,
                    "architecture": dict(arch),
                    "macs": count,
                    "parameters": space.cost(arch).parameters,
                    **found,
                }
                for label, arch, count, found in zip(names, architectures, macs, pairs, strict=True)
            ],
        },
    )
    print(show(names, pairs, macs))
    print(f"\nmean +- standard error over {options.seeds} seeds (random: {options.random_seeds})")
    print(f"\nKendall's tau over the {len(drawn)} random subnets")
    print(table(["", "tau"], [[label, number(value)] for label, value in rank.items()]))
    print(f"\n{written}")


if __name__ == "__main__":
    main()
