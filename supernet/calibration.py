"""Which inputs the linear layers of a network see: what their quantization is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def observed_ranges(module: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Note the lowest and the highest input of every linear layer of `module` while it runs.

    Yields:
        Ranges by the layer's name in `module`, filled as calls are made.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def note(name: str, x: Tensor) -> None:
        low, high = (float(value) for value in torch.aminmax(x))
        known = ranges.get(name, (low, high))
        ranges[name] = (min(low, known[0]), max(high, known[1]))

    with _watched(module, note):
        yield ranges


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
