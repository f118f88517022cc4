"""Which inputs the linear layers of a network see: the ranges of static 8-bit activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def observed_ranges(module: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Note the lowest and the highest input of every linear layer of `module` while it runs.

    Yields:
        Ranges by the layer's name in `module`, filled as calls are made.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str, linear: nn.Linear) -> object:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = (float(value) for value in torch.aminmax(inputs[0]))
            known = ranges.get(name, (low, high))
            ranges[name] = (min(low, known[0]), max(high, known[1]))

        return linear.register_forward_pre_hook(note)

    handles = [
        watch(name, child) for name, child in module.named_modules() if isinstance(child, nn.Linear)
    ]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
