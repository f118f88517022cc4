"""What a model gets that knows only how often each class occurs: less than that is no learning."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nas.tasks.task import SplitName, Task

LIMIT_SE = 2.0
"""A model is better than guessing when it is so by more than this many combined standard errors."""


def guessing(task: Task, split: SplitName = "validation") -> dict[str, float]:
    """Metrics of a model whose logits are the logarithms of the classes' shares in `train`.

    A class that `train` has not counts as half a sample.

    Args:
        task: The data.
        split: What to judge it on.
    """
    counts = torch.zeros(task.num_classes, dtype=torch.float64)
    for _, targets in task.split("train"):
        counts += torch.bincount(targets.reshape(-1), minlength=task.num_classes)
    logits = counts.clamp(min=0.5).log().float()

    def forward(inputs: Tensor) -> Tensor:
        # Tokens are predicted one by one, images as a whole.
        shape = inputs.shape if task.kind == "language-modelling" else inputs.shape[:1]
        return logits.expand(*shape, -1)

    return task.metrics(forward, split)


def no_better_than_guessing(task: Task, name: str, metrics: Mapping[str, float]) -> str | None:
    """One line of warning if a model is no better than `guessing`, else None.

    Args:
        task: The data.
        name: What the model is called.
        metrics: Of the model, on the validation split.
    """
    quality = task.quality
    value, base = metrics[quality], guessing(task)
    error = math.hypot(metrics[f"{quality}_se"], base[f"{quality}_se"])
    if not math.isfinite(value) or base[quality] - value > LIMIT_SE * error:
        return None
    words = quality.replace("_", " ")
    return (
        f"SUPERNET NOT SANE: {name} has {words} {value:.4g}, no better than the "
        f"{base[quality]:.4g} of guessing by how often each class occurs; train for more "
        "steps, with another learning_rate or less augmentation, before trusting a search"
    )
