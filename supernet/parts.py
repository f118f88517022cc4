"""A plain network as a list of parts: what is exported, and how data flows between them.

A part is a stem, a block or a head. Runtimes get a network part by part (`latency.graphs`), so
that a latency table, a whole subnet and what ships are made of the same pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Port:
    """A named input or output of a network."""

    name: str
    shape: tuple[int | str, ...]
    """Sizes; a name (`batch`, `sequence`, `past`, `total`) where the size is free."""
    tokens: int = 0
    """Number of tokens to choose from, for int64 inputs; 0 for fp32."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module of a network and the names of the tensors that it takes and gives."""

    name: str
    """Prefix of the parameters' names."""
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Parts in order of execution, with the inputs and outputs of the whole."""

    parts: tuple[Part, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor by name, the inputs too, after running all parts eagerly."""
        values = dict(feeds)
        for part in self.parts:
            results = part.module(*(values[name] for name in part.inputs))
            results = (results,) if isinstance(results, Tensor) else results
            values.update(zip(part.outputs, results, strict=True))
        return values


def example_inputs(
    ports: Sequence[Port], sizes: Mapping[str, int], seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs: tokens, or standard normal numbers.

    Args:
        ports: What the network takes.
        sizes: Size of each free dimension.
        seed: Seed of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    feeds = {}
    for port in ports:
        shape = [sizes[size] if isinstance(size, str) else size for size in port.shape]
        if port.tokens:
            feeds[port.name] = torch.randint(port.tokens, shape, generator=generator)
        else:
            feeds[port.name] = torch.randn(shape, generator=generator)
    return feeds
