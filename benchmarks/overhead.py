"""What elasticity costs: a subnet inside the supernet against its extracted module.

1 thread, CPU time, interleaved pairs in random order, median of the ratios of neighbours.
Bars: a forward at most 1.03 times at batch 16 and 1.05 at batch 1; a sandwich step at most 1.05
times the sum of the training steps of its four extracted modules.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.config import load_config
from nas.stages.supernet import build_space
from search_spaces import DecoderSpace, TransformerSpace, VisionTransformerSpace, sample_by_cost
from supernet.distillation import LOSSES
from supernet.families import build_supernet
from supernet.gradients import SharedGradients
from supernet.optimizer import build_adamw
from supernet.sandwich import sandwich, sandwich_step

SPACES: dict[str, TransformerSpace] = {
    "digits": build_space(load_config("examples/digits.yaml")),
    "text": build_space(load_config("examples/text.yaml")),
    "vit-192": VisionTransformerSpace(
        image_size=32,
        patch_size=4,
        channels=3,
        num_classes=10,
        head_dim=32,
        embed=(96, 144, 192),
        depth=(3, 4, 6),
        heads=(2, 4, 6),
        ffn=(192, 384, 576, 768),
    ),
}


def example(space: TransformerSpace, batch: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a batch."""
    if isinstance(space, VisionTransformerSpace):
        size = (batch, space.channels, space.image_size, space.image_size)
        return torch.randn(size), torch.randint(space.num_classes, (batch,))
    assert isinstance(space, DecoderSpace)
    tokens = torch.randint(space.vocabulary, (batch, space.context + 1))
    return tokens[:, :-1], tokens[:, 1:]


def ratios(
    first: Callable[[], object], second: Callable[[], object], pairs: int, repeats: int
) -> list[float]:
    """CPU time of `first` over that of `second`, in neighbouring runs of random order."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(pairs):
        times = {}
        for which in rng.permutation(2):
            run = (first, second)[which]
            start_ns = time.process_time_ns()
            for _ in range(repeats):
                run()
            times[which] = time.process_time_ns() - start_ns
        result.append(times[0] / times[1])
    return result


def forward_overhead(space: TransformerSpace, batch: int, subnets: int, pairs: int) -> list[float]:
    """Median ratio per subnet of a forward pass."""
    model = build_supernet(space).eval()
    inputs, _ = example(space, batch)
    rng = np.random.default_rng(1)
    medians = []
    for arch in sample_by_cost(space, lambda arch: space.cost(arch).macs, subnets, rng):
        plain = model.extract(arch)
        with torch.inference_mode():
            start_s = time.process_time()
            plain(inputs)
            repeats = max(1, int(0.02 / max(time.process_time() - start_s, 1e-4)))
            medians.append(
                statistics.median(
                    ratios(
                        lambda arch=arch: model(inputs, arch),
                        lambda plain=plain: plain(inputs),
                        pairs,
                        repeats,
                    )
                )
            )
    return medians


def step_overhead(space: TransformerSpace, batch: int, steps: int) -> list[float]:
    """Sandwich step over the sum of the steps of its extracted modules, per step."""
    model = build_supernet(space).train()
    gradients = SharedGradients(model.parameters())
    optimizer = build_adamw(model, learning_rate=1e-4, weight_decay=0.05)
    inputs, targets = example(space, batch)
    result = []
    rng = np.random.default_rng(0)
    for step in range(steps + 2):
        architectures = sandwich(space, seed=0, step=step, random_subnets=2)
        alone = []
        for arch in architectures:
            plain = model.extract(arch).train()
            alone.append((plain, build_adamw(plain, learning_rate=1e-4, weight_decay=0.05)))
        with torch.inference_mode():
            teacher = model(inputs, architectures[0]).clone()
        for plain, own in alone:
            train_alone(plain, own, inputs, targets, teacher, largest=plain is alone[0][0])
        times = {}
        for which in rng.permutation(2):
            start_ns = time.process_time_ns()
            if which == 0:
                sandwich_step(
                    model,
                    gradients,
                    optimizer,
                    inputs,
                    targets,
                    architectures,
                    distillation=LOSSES["kl"],
                    label_smoothing=0.1,
                    dropout=0.0,
                    clip_norm=1.0,
                )
            else:
                for plain, own in alone:
                    train_alone(plain, own, inputs, targets, teacher, largest=plain is alone[0][0])
            times[which] = time.process_time_ns() - start_ns
        if step >= 2:
            result.append(times[0] / times[1])
    return result


def train_alone(
    plain: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    teacher: Tensor,
    *,
    largest: bool,
) -> None:
    """One training step of an extracted module: the same loss, clipping and AdamW."""
    outputs = plain(inputs)
    logits = outputs if isinstance(outputs, Tensor) else outputs[0]
    logits = logits.flatten(0, -2)
    if largest:
        loss = F.cross_entropy(logits, targets.flatten(), label_smoothing=0.1)
    else:
        loss = LOSSES["kl"](logits, teacher.flatten(0, -2))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()


def main() -> None:
    """Print a row per space."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=41)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--spaces", nargs="*", default=list(SPACES), choices=list(SPACES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    missed = False
    print("space    what                   median   worst subnet   bar")
    for name in options.spaces:
        space = SPACES[name]
        for batch, bar in ((16, 1.03), (1, 1.05)):
            found = forward_overhead(space, batch, options.subnets, options.pairs)
            missed |= statistics.median(found) > bar
            print(
                f"{name:8} forward, batch {batch:<2}     {statistics.median(found):8.3f} "
                f"{max(found):12.3f} {bar:8.2f}",
                flush=True,
            )
        batch = 64 if name == "digits" else 16
        found = step_overhead(space, batch, options.steps)
        missed |= statistics.median(found) > 1.05
        print(
            f"{name:8} sandwich step, batch {batch:<2}{statistics.median(found):7.3f} "
            f"{'':12} {1.05:8.2f}",
            flush=True,
        )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
