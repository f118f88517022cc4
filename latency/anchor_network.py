"""The anchor as a PyTorch network, for backends that do not start from ONNX."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latency.anchor import ANCHOR_LAYERS, EPSILON, HEADS, TOKENS, WIDTH, anchor_values
from latency.artifact import Artifact, build_artifact
from latency.backend import DeviceBackend
from latency.graphs import GraphLibrary
from supernet.parts import Network, Part, Port


class AnchorModule(nn.Module):
    """The network of `latency.anchor`, with its computed weights."""

    def __init__(self, layers: int = ANCHOR_LAYERS) -> None:
        super().__init__()
        self.layers = layers
        for name, value in anchor_values(layers).weights.items():
            if "." not in name:  # constants of the ONNX graph
                continue
            tensor = torch.from_numpy(value)
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        """`(1, TOKENS, WIDTH)` to the same."""
        for layer in range(self.layers):
            qkv = self._linear("qkv", layer, self._normalize(x))
            heads = qkv.view(1, TOKENS, 3, HEADS, WIDTH // HEADS)
            query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (1, H, T, D) each
            scale = 1 / math.sqrt(WIDTH // HEADS)
            mixed = F.scaled_dot_product_attention(query, key, value, scale=scale)
            mixed = mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH)
            x = x + self._linear("proj", layer, mixed)
            hidden = F.gelu(self._linear("up", layer, self._normalize(x)))
            x = x + self._linear("down", layer, hidden)
        return self._normalize(x)

    def _normalize(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), eps=EPSILON)

    def _linear(self, name: str, layer: int, x: Tensor) -> Tensor:
        weight = self.get_parameter(f"{name}_{layer}")  # (in, out)
        return x @ weight + self.get_parameter(f"{name}_bias_{layer}")


def compile_anchor(backend: DeviceBackend, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
    """The anchor, compiled by a backend like any other network.

    The reference output is computed in numpy; see `latency.anchor`.

    Raises:
        UserError: The backend cannot compile it, or the disk is full.
    """
    values = anchor_values(layers)
    shape = (1, TOKENS, WIDTH)
    module = AnchorModule(layers).eval()
    network = Network(
        parts=(Part(name="anchor", module=module, inputs=("x",), outputs=("y",)),),
        inputs=(Port(name="x", shape=shape),),
        outputs=(Port(name="y", shape=shape),),
    )
    path = folder / f"anchor-{layers}{backend.suffix}"
    facts = {"anchor": "transformer-1", **backend.build_facts()}
    feeds = {"x": torch.from_numpy(values.input)}
    backend.compile(network, feeds, path, library=GraphLibrary(), facts=facts)
    return build_artifact(
        path,
        inputs={"x": values.input},
        outputs={"y": values.output},
        tolerance=max(1e-3, backend.tolerance),
        provenance=facts,
    )
