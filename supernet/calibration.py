"""Which inputs the linear layers of a network see: what their quantization is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from supernet.quantization import rounded_to_8_bits

ROWS = 256
"""Inputs of a layer in a batch that a range is chosen by, at most."""
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
    rows: dict[str, list[Tensor]] = {}

    def note(name: str, x: Tensor) -> None:
        low, high = (float(value) for value in torch.aminmax(x))
        known = ranges.get(name, (low, high))
        ranges[name] = (min(low, known[0]), max(high, known[1]))
        inputs = x.flatten(0, -2)
        rows.setdefault(name, []).append(inputs[:: -(-len(inputs) // ROWS)].clone())

    with _watched(module, note):
        yield ranges
    for name, some in rows.items():
        ranges[name] = least_error(torch.cat(some), ranges[name])


def least_error(x: Tensor, bounds: tuple[float, float]) -> tuple[float, float]:
    """The range, of `SHARES` of `bounds`, in which 8 bits give `x` with the least squared error.

    A few large inputs cost all others a coarser step; where those are few enough, it is better to
    clip them.

    Args:
        x: Inputs, shape `(*batch, I)`.
        bounds: The lowest and the highest of all inputs, of which `x` may be some.
    """

    def error(share: float) -> float:
        low, high = (torch.tensor(share * bound) for bound in bounds)
        return float((rounded_to_8_bits(x, low, high) - x).square().sum())

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
