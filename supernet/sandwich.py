"""One training step of a supernet: which subnets it trains, and what each of them learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import UserError
from search_spaces.sampling import sample_by_cost
from search_spaces.space import Architecture, SearchSpace
from search_spaces.transformer import TransformerSpace
from supernet.distillation import DistillationLoss, kl_divergence
from supernet.gradients import SharedGradients


class ElasticForward(Protocol):
    """What training calls: a supernet, or a compiled form of one."""

    def __call__(self, inputs: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        """Inputs `(*batch, ...)` to the logits of subnet `arch`, shape `(*batch, classes)`."""


class NonFiniteError(UserError):
    """A loss or the gradient is not a finite number; the weights have not been touched."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step saw."""

    losses: tuple[float, ...]
    """Mean loss of each subnet, in nats, in the order of the architectures that were given."""
    gradient_norm: float
    """Norm of the summed gradient before clipping."""


def sandwich(
    space: SearchSpace,
    *,
    seed: int,
    step: int,
    random_subnets: int = 2,
    cost: Callable[[Architecture], float] | None = None,
) -> list[Architecture]:
    """The subnets of one step by the sandwich rule (arXiv:1903.05134, BigNAS arXiv:2003.11142).

    A function of its arguments alone, so that a training that is resumed draws the same subnets.

    Args:
        space: Where the subnets come from.
        seed: Seed of the training.
        step: Index of the step.
        random_subnets: How many to draw between the two ends. Two equal ones may be drawn.
        cost: Draw uniformly over this cost, such as parameters; None is uniform over genes.

    Returns:
        The largest, the smallest, and `random_subnets` others.
    """
    rng = np.random.default_rng((seed, step))
    if cost is None:
        drawn = [space.sample(rng) for _ in range(random_subnets)]
    else:
        drawn = [sample_by_cost(space, cost, 1, rng)[0] for _ in range(random_subnets)]
    return [space.largest, space.smallest, *drawn]


def with_policies(
    architectures: Sequence[Architecture], policies: TransformerSpace, *, seed: int, step: int
) -> list[Architecture]:
    """What a step of quantization-aware training takes instead of the subnets of `sandwich`.

    The largest stays in fp32, since the others learn from it. These have a random policy each, and
    so has the largest once more, at the end. A function of its arguments alone.

    Args:
        architectures: The largest first, all without a policy.
        policies: The same space with policies.
        seed: Seed of the training.
        step: Index of the step.
    """
    teacher, *students = architectures
    rng = np.random.default_rng(np.random.SeedSequence((seed, step), spawn_key=(2,)))
    return [teacher, *(policies.with_random_policy(arch, rng) for arch in (*students, teacher))]


def sandwich_step(
    forward: ElasticForward,
    gradients: SharedGradients,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    architectures: Sequence[Architecture],
    *,
    distillation: DistillationLoss | None = kl_divergence,
    label_smoothing: float = 0.1,
    dropout: float = 0.0,
    clip_norm: float | None = 1.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> StepResult:
    """Train all `architectures` on one batch, with one step of the optimizer.

    The first learns from the labels, with label smoothing and dropout; each other one learns from
    the detached logits of the first, without dropout (in-place distillation, arXiv:1903.05134).
    Without a loss of distillation all learn from the labels, as in MatFormer (arXiv:2310.07707):
    a teacher that knows little yet holds back the weights that it shares with its students.
    Each subnet goes backward before the next goes forward, so that activations of one at a time
    are held.

    Args:
        forward: The supernet, or a compiled form of it.
        gradients: Of all parameters of the supernet; cleared first.
        optimizer: Takes one step.
        inputs: One batch, on the device of the parameters.
        targets: Classes, shape `(*batch,)`, int64.
        architectures: The largest first.
        distillation: Loss of all but the first; None is that of the first.
        label_smoothing: Share of a label that is spread over all classes.
        dropout: Dropout of the first.
        clip_norm: Largest norm of the summed gradient; None does not clip.
        autocast: Gives the context in which logits and losses are computed.

    Returns:
        Losses and gradient norm.

    Raises:
        NonFiniteError: A loss or the gradient is infinite or not a number. The optimizer has then
            not been called.
    """
    gradients.clear()
    teacher: Tensor | None = None
    losses = []
    for arch in architectures:
        with autocast(), gradients.collect():
            first = teacher is None
            logits = forward(inputs, arch, dropout=dropout if first else 0.0)  # (*batch, classes)
            if teacher is not None and distillation is not None:
                loss = distillation(logits, teacher)
            else:
                loss = F.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]).float(),
                    targets.reshape(-1),
                    label_smoothing=label_smoothing,
                )
            if first:
                teacher = logits.detach()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    # One transfer for all numbers: on a GPU every single one would wait for the device.
    *values, norm = torch.stack([*losses, gradients.norm()]).tolist()
    _check_finite(values, norm, architectures)
    if clip_norm is not None and norm > clip_norm:
        gradients.buffer.mul_(clip_norm / norm)
    optimizer.step()
    return StepResult(losses=tuple(values), gradient_norm=norm)


def _check_finite(
    losses: Sequence[float], gradient_norm: float, architectures: Sequence[Architecture]
) -> None:
    for index, (loss, arch) in enumerate(zip(losses, architectures, strict=True)):
        if not math.isfinite(loss):
            role = ("largest", "smallest")[index] if index < 2 else "random"
            raise NonFiniteError(f"the loss of the {role} subnet {arch.to_json()} is {loss}")
    if not math.isfinite(gradient_norm):
        raise NonFiniteError(
            f"all losses are finite, but the norm of the gradient is {gradient_norm}"
        )
