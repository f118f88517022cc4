"""torch.compile for supernets: the two subnets that every step trains, as graphs of fixed shape.

Widths are integers, and every step draws others: a compiled forward of the whole supernet would be
compiled again and again, and one for symbolic widths is slower than eager kernels. The largest and
the smallest come back every step, so that each is compiled once; the random ones run as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.space import Architecture, SearchSpace


class CompiledEnds:
    """Runs the largest and the smallest subnet compiled, and every other one eagerly.

    Args:
        model: Called as `model(inputs, arch, dropout=p)`.
        space: Its search space.
    """

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        subnet = getattr(type(space), "subnet", None)
        if subnet is not None:
            # What an architecture means is fixed. Traced, it would depend on a cache that grows.
            torch.compiler.assume_constant_result(subnet)  # type: ignore[no-untyped-call]
        self.model = model
        self.compiled = {arch: _fixed(model, arch) for arch in (space.largest, space.smallest)}

    def __call__(self, inputs: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        """Logits of subnet `arch`; see `supernet.sandwich.ElasticForward`."""
        compiled = self.compiled.get(arch)
        if compiled is not None:
            logits: Tensor = compiled(inputs, dropout)
        else:
            logits = self.model(inputs, arch, dropout=dropout)
        return logits


def _fixed(model: nn.Module, arch: Architecture) -> Any:
    def forward(inputs: Tensor, dropout: float) -> Tensor:
        logits: Tensor = model(inputs, arch, dropout=dropout)
        return logits

    return torch.compile(forward, dynamic=False)
