"""From a network to a `torch.export` program, for the backends that start from one."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from supernet.parts import Network

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class NetworkModule(nn.Module):
    """A network as one module, in one precision; inputs and outputs stay fp32 or int64.

    Args:
        network: Its parts are copied if their precision changes.
        precision: `fp32`, `fp16` or `bf16`.
    """

    def __init__(self, network: Network, precision: str = "fp32") -> None:
        super().__init__()
        self.network = network
        self.dtype = DTYPES[precision]
        modules = [part.module for part in network.parts]
        if self.dtype != torch.float32:
            modules = [copy.deepcopy(module).to(self.dtype) for module in modules]
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for its inputs, both in the order of its ports."""
        ports = self.network.inputs
        values = {
            port.name: value.to(self.dtype) if value.is_floating_point() else value
            for port, value in zip(ports, inputs, strict=True)
        }
        for part, module in zip(self.network.parts, self.parts, strict=True):
            results = module(*(values[name] for name in part.inputs))
            results = (results,) if isinstance(results, Tensor) else results
            values.update(zip(part.outputs, results, strict=True))
        return tuple(values[port.name].to(torch.float32) for port in self.network.outputs)


def export_program(
    network: Network, feeds: Mapping[str, Tensor], precision: str = "fp32"
) -> ExportedProgram:
    """The network as a program for exactly the shapes of `feeds`.

    Args:
        network: What to export.
        feeds: Example inputs by name.
        precision: See `NetworkModule`.
    """
    module = NetworkModule(network, precision).eval()
    example = tuple(feeds[port.name] for port in network.inputs)
    with torch.no_grad():
        return torch.export.export(module, example)
