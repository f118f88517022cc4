"""Layers whose leading rows and columns are trained layers of their own.

Weights are shared by prefix (Once-for-All, arXiv:1908.09791; MatFormer, arXiv:2310.07707): a slice
is a view, never a copy, and a width is an argument, never state.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.gradients import prefix


class Views(dict[Hashable, tuple[int, int, tuple[Tensor, ...]]]):
    """Views of the leading part of a module's parameters, remembered while nothing is trained.

    Making a view takes microseconds, and a layer of a small subnet takes not many more. By key: the
    addresses of the first two, and the views. A copy of a module remembers nothing of another's.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Views:
        return Views()

    def __reduce__(self) -> tuple[type[Views], tuple[()]]:
        return Views, ()


def recall(
    views: Views, key: Hashable, parameter: Tensor | None, second: Tensor | None = None
) -> tuple[Tensor, ...] | None:
    """What `keep` remembered, if gradients are off and it still looks at these parameters.

    A view holds the memory that it looks at, so equal addresses mean that it is a view of the
    parameter, whatever was loaded or moved since.
    """
    if torch.is_grad_enabled() or parameter is None:
        return None
    known = views.get(key)
    if known is None:
        return None
    address, second_address, found = known
    if parameter.data_ptr() != address:
        return None
    if second is not None and second.data_ptr() != second_address:
        return None
    return found


def keep(views: Views, key: Hashable, *found: Tensor) -> tuple[Tensor, ...]:
    """Remember views; the first two are of the parameters that `recall` is asked about."""
    if not torch.is_grad_enabled():
        second = found[1].data_ptr() if len(found) > 1 else 0
        views[key] = (found[0].data_ptr(), second, found)
    return found


class ElasticLinear(nn.Linear):
    """Linear layer of which any leading part is a layer."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self._views = Views()

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
        key = (x.shape[-1], out_width)
        own = self._parameters
        views = recall(self._views, key, own["weight"], own["bias"])
        return F.linear(x, *(views or self._slice(key)))

    def _slice(self, key: tuple[int, int | None]) -> tuple[Tensor, ...]:
        in_width, out_width = key
        width = self.out_features if out_width is None else out_width
        if in_width > self.in_features or not 0 < width <= self.out_features:
            raise ValueError(
                f"slice {width} x {in_width} does not fit in the layer's "
                f"{self.out_features} x {self.in_features}"
            )
        weight = prefix(self.weight, width, in_width)
        if self.bias is None:
            return keep(self._views, key, weight)
        return keep(self._views, key, weight, prefix(self.bias, width))


class ElasticLayerNorm(nn.LayerNorm):
    """Layer normalisation over as many features as the input has."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self._views = Views()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        width = x.shape[-1]
        own = self._parameters
        weight, bias = recall(self._views, width, own["weight"], own["bias"]) or keep(
            self._views, width, prefix(self.weight, width), prefix(self.bias, width)
        )
        return F.layer_norm(x, (width,), weight, bias, self.eps)


class ElasticRMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation (arXiv:1910.07467) over as many features as the input has."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self._views = Views()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape `(*batch, width)` with `width` at most the layer's."""
        width = x.shape[-1]
        (weight,) = recall(self._views, width, self._parameters["weight"]) or keep(
            self._views, width, prefix(self.weight, width)
        )
        return F.rms_norm(x, (width,), weight, self.eps)


class ElasticEmbedding(nn.Embedding):
    """Token embedding of which any leading features are an embedding."""

    def forward(self, tokens: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Look up `tokens`, shape `(*batch,)`, giving shape `(*batch, width)`."""
        return F.embedding(tokens, prefix(self.weight, self.num_embeddings, width))


class ElasticPatchEmbedding(nn.Conv2d):
    """Patch embedding of which any leading output channels are an embedding."""

    def __init__(self, channels: int, embed: int, patch_size: int) -> None:
        super().__init__(channels, embed, patch_size, patch_size)
        self._views = Views()

    def forward(self, images: Tensor, width: int) -> Tensor:  # type: ignore[override]
        """Embed patches of `images`, shape `(B, C, H, W)`, giving `(B, width, H/p, W/p)`."""
        assert self.bias is not None
        own = self._parameters
        weight, bias = recall(self._views, width, own["weight"], own["bias"]) or keep(
            self._views,
            width,
            prefix(self.weight, width, *self.weight.shape[1:]),
            prefix(self.bias, width),
        )
        return F.conv2d(images, weight, bias, self.stride)


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
