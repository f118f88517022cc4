"""Quality of subnets of a pretrained network: as imported, after tuning, and without pretraining.

A vision transformer of Hugging Face's transformers is trained on the training split of the digits,
from the labels alone, and saved with `save_pretrained`. Then, for five uniform subnets:

- imported: the weights as they were, and in the order of their importance; nothing is trained
- tuned: after some steps of the sandwich rule from the one and from the other
- from scratch: after as many steps from random weights

    python -m benchmarks.pretrained
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.results import FOLDER, number, percent, table, write_results
from nas.config import Config, validate
from nas.run import Run
from nas.stages.pretrained import give_start, open_start
from nas.stages.supernet import build_space, evaluate, open_supernet, open_task, train
from nas.tasks import SplitName, Task
from search_spaces import Architecture
from supernet.families import build_supernet
from supernet.optimizer import build_adamw
from supernet.schedule import warmup_cosine

SPLITS: tuple[SplitName, ...] = ("validation", "test")
Qualities = list[dict[str, dict[str, float]]]
"""Metrics by split, of each subnet."""
SCRATCH_RATE = 4e-3
"""Learning rate of the digits example, for all that starts from random weights."""
CHOICES = {
    "patch_size": 2,
    "pooling": "cls",
    "norm_epsilon": 1e-12,
    "head_dim": 16,
    "embed": [32, 48, 64],
    "depth": [2, 3, 4],
    "heads": [2, 3, 4],
    "ffn": [48, 96, 144, 192],
}


def configuration(output: Path, seed: int, **training: Any) -> Config:
    """The digits with the space that `nas init` derives from the network below."""
    return validate(
        {
            "seed": seed,
            "output": str(output),
            "task": {
                "kind": "image-classification",
                "data": "digits",
                "augment": {"shift": 0.5},
                "split_seed": 0,
            },
            "space": CHOICES,
            "training": {"threads": 1, "distillation": "kl", **training},
        },
        "benchmark",
    )


def pretrain(task: Task, folder: Path, *, steps: int, seed: int) -> None:
    """Train a network of transformers on the labels of the training split, and save it."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    settings = ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=8,
        patch_size=2,
        num_channels=1,
        id2label=dict(enumerate(task.record["classes"])),
    )
    model = ViTForImageClassification(settings).train()
    optimizer = build_adamw(model, learning_rate=SCRATCH_RATE, weight_decay=0.05)
    for step in range(steps):
        images, labels = task.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(
                step, steps=steps, warmup_steps=min(100, steps // 2), learning_rate=SCRATCH_RATE
            )
        loss = F.cross_entropy(model(images).logits, labels, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    how = task.record["normalisation"]
    processor = {"image_mean": how["mean"], "image_std": how["std"], "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def imported(config: Config, architectures: Sequence[Architecture]) -> Qualities:
    """Subnets right after import."""
    task = open_task(config)
    model = build_supernet(build_space(config))
    start = open_start(config)
    assert start is not None
    give_start(config, task, model, start)
    model.eval()
    return [
        {split: evaluate(model, task, arch, split) for split in SPLITS} for arch in architectures
    ]


def trained(config: Config, architectures: Sequence[Architecture]) -> Qualities:
    """Subnets after the training that a configuration asks for."""
    with Run.open(config) as run:
        train(run)
        supernet = open_supernet(run)
        found = {split: supernet.metrics(architectures, split) for split in SPLITS}
    return [{split: found[split][place] for split in SPLITS} for place in range(len(architectures))]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per subnet and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretraining-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=200, help="of the sandwich rule")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of tuning")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a tiny run, to see that it runs")
    options = parser.parse_args(argv)
    name, seeds = "pretrained", options.seeds
    if options.smoke:
        name, seeds = "pretrained-smoke", 1
        options.pretraining_steps, options.steps = 4, 4
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.set_num_threads(1)
    started_s = time.monotonic()
    found: dict[str, list[Qualities]] = {}
    for seed in range(seeds):
        checkpoint = folder / f"checkpoint-{seed}"
        plain = configuration(folder / "task", seed)
        task, space = open_task(plain), build_space(plain)
        architectures = space.uniform(5)
        pretrain(task, checkpoint, steps=options.pretraining_steps, seed=seed)
        for order in (False, True):
            how = "by importance" if order else "as it was"
            config = configuration(
                folder / f"tuned-{order}-{seed}",
                seed,
                pretrained=str(checkpoint),
                importance_order=order,
                steps=options.steps,
                warmup_steps=options.steps // 10,
                learning_rate=options.learning_rate,
                dropout=0.0,
            )
            found.setdefault(f"imported, {how}", []).append(imported(config, architectures))
            found.setdefault(f"tuned, {how}", []).append(trained(config, architectures))
        config = configuration(
            folder / f"scratch-{seed}",
            seed,
            steps=options.steps,
            warmup_steps=options.steps // 4,
            learning_rate=SCRATCH_RATE,
        )
        found.setdefault("from scratch", []).append(trained(config, architectures))
    rows, results = [], []
    for label, runs in found.items():
        for place, arch in enumerate(architectures):
            means = {
                split: {
                    metric: sum(run[place][split][metric] for run in runs) / len(runs)
                    for metric in ("accuracy", "cross_entropy")
                }
                for split in SPLITS
            }
            kmacs = space.cost(arch).macs / 1e3
            results.append({"start": label, "kmacs": kmacs, "subnet": dict(arch), **means})
            row = [label, f"{kmacs:.0f}"]
            for split in SPLITS:
                row.append(percent(means[split]["accuracy"], 1))
                row.append(number(means[split]["cross_entropy"]))
            rows.append(row)
    written = write_results(name, {"options": vars(options), "subnets": results})
    print(table(["start", "kMACs", "validation", "nats", "test", "nats"], rows))
    print(f"\nmeans over {seeds} seeds; {time.monotonic() - started_s:.0f} s\n{written}")


if __name__ == "__main__":
    main()
