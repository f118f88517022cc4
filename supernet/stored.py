"""Layers whose weights are only stored in few bits, and which run as fp32: embeddings and such."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from search_spaces.schemes import FULL, Scheme
from supernet.integers import IntegerWeight, integer_weight

FLOAT_TYPES: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}
LARGEST_FP16 = 65504.0


def float_weight(weight: Tensor, scheme: Scheme) -> Tensor:
    """Weights in 16 bits, finite where they were."""
    if scheme.name == "fp16":
        weight = weight.clamp(-LARGEST_FP16, LARGEST_FP16)
    return weight.to(FLOAT_TYPES[scheme.name])


def rounded(weight: Tensor, scheme: Scheme) -> Tensor:
    """Weights, shape `(O, I)`, as a scheme gives them back, each rounded to the nearest."""
    if scheme.integer:
        return integer_weight(weight, scheme, rounding="nearest").floats(weight.shape[1])
    return float_weight(weight, scheme).to(weight.dtype)


class StoredLayer(nn.Module):
    """A layer with its weights as they come back from the file; without gradients.

    Args:
        layer: The layer in fp32, whose parameters are taken over as they are. The first dimension
            of its weight is that of outputs, or of tokens; a scale is for one of these.
        scheme: One that runs as fp32, but fp32.

    Raises:
        ValueError: The scheme has an arithmetic of its own.
    """

    def __init__(self, layer: nn.Module, scheme: Scheme) -> None:
        super().__init__()
        if scheme.runs_as != FULL:
            raise ValueError(f"scheme {scheme.name} is for products of matrices alone")
        self.layer, self.scheme = layer, scheme
        self._rounded: tuple[tuple[int, int], Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """In fp32, shape `(O, I)`."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight.detach().flatten(1)

    @property
    def in_features(self) -> int:
        """Weights of one output."""
        return self.weight.shape[1]

    def integers(self) -> IntegerWeight:
        """The weights as the file holds them."""
        with torch.inference_mode(False), torch.no_grad():
            return integer_weight(self.weight, self.scheme, rounding="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives with the weights that the file holds."""
        out: Tensor = torch.func.functional_call(self.layer, {"weight": self._floats()}, (x,))
        return out

    def _floats(self) -> Tensor:
        """Shape of the layer's weight: kept while that stays."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        state = (weight.data_ptr(), weight._version)
        if self._rounded is None or self._rounded[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._rounded = state, rounded(self.weight, self.scheme).view(weight.shape)
        return self._rounded[1]
