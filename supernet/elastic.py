"""Layers whose leading rows and columns are trained layers of their own.

Weights are shared by prefix (Once-for-All, arXiv:1908.09791; MatFormer, arXiv:2310.07707): a slice
is a view, never a copy, and a width is an argument, never state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ElasticLinear(nn.Linear):
    """Linear layer of which any leading part is a layer."""

    def forward(self, x: Tensor, out_width: int | None = None) -> Tensor:
        """Apply the part of the layer that fits `x`.

        Args:
            x: Input, shape `(*batch, in_width)` with `in_width <= in_features`.
            out_width: Output features to keep; None keeps all.

        Returns:
            Output, shape `(*batch, out_width)`, same dtype as `x`.

        Raises:
            ValueError: The slice does not fit in the layer.
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        in_width = x.shape[-1]
        if in_width > self.in_features or (out_width or 0) > self.out_features:
            raise ValueError(
                f"slice {out_width} x {in_width} does not fit in the layer's "
                f"{self.out_features} x {self.in_features}"
            )
        if out_width is not None and out_width < self.out_features:
            weight = weight[:out_width]
            bias = None if bias is None else bias[:out_width]
        if in_width < self.in_features:
            weight = weight[:, :in_width]
        return F.linear(x, weight, bias)


class ElasticLayerNorm(nn.LayerNorm):
    """Layer normalisation over as many features as the input has."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        width = x.shape[-1]
        if width == self.normalized_shape[0]:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.layer_norm(x, (width,), self.weight[:width], self.bias[:width], self.eps)


class ElasticRMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation (arXiv:1910.07467) over as many features as the input has."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        return F.rms_norm(x, (x.shape[-1],), self.weight[: x.shape[-1]], self.eps)


class ElasticEmbedding(nn.Embedding):
    """Token embedding of which any leading features are an embedding."""

    def forward(self, tokens: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Look up `tokens`, shape `(*batch,)`, giving shape `(*batch, width)`."""
        return F.embedding(tokens, self.weight[:, :width])


class ElasticPatchEmbedding(nn.Conv2d):
    """Patch embedding of which any leading output channels are an embedding."""

    def forward(self, images: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Embed patches of `images`, shape `(B, C, H, W)`, giving `(B, width, H/p, W/p)`."""
        assert self.bias is not None
        return F.conv2d(images, self.weight[:width], self.bias[:width], self.stride)


@torch.no_grad()
def copy_prefix(plain: nn.Module, elastic: nn.Module, layers: Sequence[int]) -> None:
    """Fill `plain` with the leading part of the parameters of equal name in `elastic`.

    Every elastic dimension is a prefix, so that the shape of a plain parameter says which slice
    it is.

    Args:
        plain: A subnet's own module; its layer lists hold the layers that stay.
        elastic: The supernet.
        layers: For each layer of `plain`, which layer of `elastic` it is.
    """
    for name, parameter in plain.named_parameters():
        owner, *rest = name.split(".")
        if rest and rest[0].isdigit():
            name = ".".join([owner, str(layers[int(rest[0])]), *rest[1:]])
        source = elastic.get_parameter(name)
        parameter.copy_(source[tuple(slice(0, size) for size in parameter.shape)])
