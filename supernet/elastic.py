"""Layers whose leading rows and columns are trained layers of their own.

Weights are shared by prefix (Once-for-All, arXiv:1908.09791; MatFormer, arXiv:2310.07707): a slice
is a view, never a copy, and a width is an argument, never state.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.schemes import FULL, SCHEMES
from supernet.gradients import prefix
from supernet.straight_through import rounded_input, rounded_weight


class ElasticLinear(nn.Linear):
    """Linear layer of which any leading part is a layer."""

    def forward(self, x: Tensor, out_width: int | None = None, scheme: str = FULL) -> Tensor:
        """Apply the part of the layer that fits `x`.

        Args:
            x: Input, shape `(*batch, in_width)` with `in_width <= in_features`.
            out_width: Output features to keep; None keeps all.
            scheme: What weights and input are rounded to, straight through.

        Returns:
            Output, shape `(*batch, out_width)`, same dtype as `x`.

        Raises:
            ValueError: The slice does not fit in the layer.
        """
        width = self.out_features if out_width is None else out_width
        in_width = x.shape[-1]
        if in_width > self.in_features or not 0 < width <= self.out_features:
            raise ValueError(
                f"slice {width} x {in_width} does not fit in the layer's "
                f"{self.out_features} x {self.in_features}"
            )
        bias = None if self.bias is None else prefix(self.bias, width)
        weight = prefix(self.weight, width, in_width)
        if scheme != FULL:
            weight = rounded_weight(weight, SCHEMES[scheme])
            x = rounded_input(x, SCHEMES[scheme])
        return F.linear(x, weight, bias)


class ElasticLayerNorm(nn.LayerNorm):
    """Layer normalisation over as many features as the input has."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        width = x.shape[-1]
        weight, bias = prefix(self.weight, width), prefix(self.bias, width)
        return F.layer_norm(x, (width,), weight, bias, self.eps)


class ElasticRMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation (arXiv:1910.07467) over as many features as the input has."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        width = x.shape[-1]
        return F.rms_norm(x, (width,), prefix(self.weight, width), self.eps)


class ElasticEmbedding(nn.Embedding):
    """Token embedding of which any leading features are an embedding."""

    def forward(self, tokens: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Look up `tokens`, shape `(*batch,)`, giving shape `(*batch, width)`."""
        return F.embedding(tokens, prefix(self.weight, self.num_embeddings, width))


class ElasticPatchEmbedding(nn.Conv2d):
    """Patch embedding of which any leading output channels are an embedding."""

    def __init__(self, channels: int, embed: int, patch_size: int) -> None:
        super().__init__(channels, embed, patch_size, patch_size)

    def forward(self, images: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Embed patches of `images`, shape `(B, C, H, W)`, giving `(B, width, H/p, W/p)`."""
        assert self.bias is not None
        weight = prefix(self.weight, width, *self.weight.shape[1:])
        bias = prefix(self.bias, width)
        return F.conv2d(images, weight, bias, self.stride)
