"""Which inputs the linear layers of a network see: what their quantization is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from supernet.quantization import rounded_to_8_bits
from supernet.stored import LARGEST_FP16

HALVES = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
"""All numbers of 16 bits, in the order of their bits: what inputs are counted as."""
SHARES = tuple(share / 20 for share in range(20, 5, -1))
"""Ranges that are tried, as shares of the lowest and the highest input."""


@contextmanager
def observed_ranges(module: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Find ranges for the inputs of every linear layer of `module` while it runs.

    Yields:
        By the layer's name, filled when the context is left: the lowest and the highest input, or
        the share of them in which the inputs lose least (`least_error`).
    """
    ranges: dict[str, tuple[float, float]] = {}
    counts: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        low, high = (float(value) for value in torch.aminmax(x))
        known = ranges.get(name, (low, high))
        ranges[name] = (min(low, known[0]), max(high, known[1]))
        counts[name] = counts.get(name, 0) + counted(x)

    with _watched(module, note):
        yield ranges
    for name, counted_inputs in counts.items():
        ranges[name] = least_error(counted_inputs, ranges[name])


def counted(x: Tensor) -> Tensor:
    """How many inputs are next to each of `HALVES`, shape `(65536,)` int64.

    Their spacing is an eighth of a step of 8 bits at most, and they need no range beforehand.
    """
    halves = x.detach().float().clamp(-LARGEST_FP16, LARGEST_FP16).half().flatten()
    places = halves.view(torch.int16).long() & 0xFFFF
    return torch.bincount(places, minlength=len(HALVES))


def least_error(counts: Tensor, bounds: tuple[float, float]) -> tuple[float, float]:
    """The range, of `SHARES` of `bounds`, in which 8 bits give inputs with the least squared error.

    A few large inputs cost all others a coarser step; where those are few enough, it is better to
    clip them. Inputs beyond 16 bits are not told apart by their counts, and keep the whole range.

    Args:
        counts: What `counted` gives, on any device.
        bounds: The lowest and the highest input.
    """
    if max(abs(bound) for bound in bounds) > LARGEST_FP16:
        return bounds
    counts = counts.cpu()
    places = counts.nonzero()[:, 0]
    x, times = HALVES[places], counts[places].double()

    def error(share: float) -> float:
        low, high = (torch.tensor(share * bound) for bound in bounds)
        return float(((rounded_to_8_bits(x, low, high) - x).square() * times).sum())

    best = min(SHARES, key=error)
    return best * bounds[0], best * bounds[1]


@contextmanager
def observed_moments(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Sum the products of the inputs of every linear layer of `module` while it runs.

    Yields:
        By the layer's name, shape `(I, I)`: the mean when the context is left.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        rows = x.flatten(0, -2)
        sums[name] = sums.get(name, 0.0) + rows.mT @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    with _watched(module, note):
        yield sums
    for name, count in counts.items():
        sums[name] = sums[name] / count


@contextmanager
def _watched(module: nn.Module, note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Tell the inputs of linear layers, by their names in `module`."""

    def watch(name: str, linear: nn.Linear) -> RemovableHandle:
        return linear.register_forward_pre_hook(lambda _, inputs: note(name, inputs[0]))

    handles = [
        watch(name, child) for name, child in module.named_modules() if isinstance(child, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
