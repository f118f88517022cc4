"""Vision transformer (arXiv:2010.11929, pre-norm): a plain network and its elastic supernet.

Shapes: `B` images, `T` tokens, `E` embedding width, `H` heads of `D` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.schemes import FULL, Policy
from search_spaces.space import Architecture
from search_spaces.transformer import Layer
from search_spaces.vit import VisionTransformerSpace
from supernet.elastic import ElasticLayerNorm, ElasticLinear, ElasticPatchEmbedding
from supernet.gradients import prefix
from supernet.parts import Network, Part, Port
from supernet.sharing import WeightSharing

NORM_EPSILON = VisionTransformerSpace.default_norm_epsilon
POSITION_STD = 0.5
"""Standard deviation of the positions at the start. The usual 0.02 drowns beside the patches and
costs short trainings from scratch several points of accuracy."""


def self_attention(qkv: Tensor, head_dim: int) -> Tensor:
    """Scaled dot-product attention.

    Args:
        qkv: Query, key and value of one head after the other, shape `(B, T, H * 3 * D)`, so that
            the first heads are a prefix.
        head_dim: `D`.

    Returns:
        Shape `(B, T, H * D)`.
    """
    batch, tokens, _ = qkv.shape
    heads = qkv.view(batch, tokens, -1, 3, head_dim)  # (B, T, H, 3, D)
    query, key, value = heads.permute(3, 0, 2, 1, 4).unbind(0)  # (B, H, T, D) each
    out = F.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).reshape(batch, tokens, -1)


class AttentionBlock(nn.Module):
    """Pre-norm self-attention with a residual connection."""

    LINEARS: ClassVar = {"qkv": ("qkv",), "attention_out": ("out",)}

    def __init__(
        self, *, embed: int, heads: int, head_dim: int, norm_epsilon: float = NORM_EPSILON
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm = nn.LayerNorm(embed, eps=norm_epsilon)
        self.qkv = nn.Linear(embed, heads * 3 * head_dim)
        self.out = nn.Linear(heads * head_dim, embed)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, E)` to `(B, T, E)`."""
        out: Tensor = self.out(self_attention(self.qkv(self.norm(x)), self.head_dim))
        return x + out


class FfnBlock(nn.Module):
    """Pre-norm feed-forward network with GELU and a residual connection."""

    LINEARS: ClassVar = {"ffn_in": ("up",), "ffn_out": ("down",)}

    def __init__(self, *, embed: int, ffn: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed, eps=norm_epsilon)
        self.up = nn.Linear(embed, ffn)
        self.down = nn.Linear(ffn, embed)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, E)` to `(B, T, E)`."""
        out: Tensor = self.down(F.gelu(self.up(self.norm(x))))
        return x + out


class Stem(nn.Module):
    """Patch embedding, class token and learned positions."""

    LINEARS: ClassVar = {"stem": ("patches",)}

    def __init__(
        self, *, channels: int, patch_size: int, tokens: int, pooling: str, embed: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, embed, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed)) if pooling == "cls" else None
        self.positions = nn.Parameter(torch.randn(1, tokens, embed) * POSITION_STD)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, T, E)`."""
        x: Tensor = self.patches(images).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self.positions


class Head(nn.Module):
    """Pooling, normalisation and classifier."""

    LINEARS: ClassVar = {"head": ("linear",)}

    def __init__(
        self, *, pooling: str, num_classes: int, embed: int, norm_epsilon: float = NORM_EPSILON
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = nn.LayerNorm(embed, eps=norm_epsilon)
        self.linear = nn.Linear(embed, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, E)` to `(B, classes)`."""
        x = x[:, 0] if self.pooling == "cls" else x.mean(dim=1)
        logits: Tensor = self.linear(self.norm(x))
        return logits


class VisionTransformer(nn.Module):
    """A plain, dense vision transformer; layers may differ in heads and FFN width.

    Args:
        space: Where image size, patches, classes and pooling are taken from.
        embed: Embedding width.
        layers: Widths of the layers; may be empty, which leaves stem and head.
    """

    def __init__(
        self, space: VisionTransformerSpace, *, embed: int, layers: Sequence[Layer]
    ) -> None:
        super().__init__()
        self.image_shape = (space.channels, space.image_size, space.image_size)
        self.stem = Stem(
            channels=space.channels,
            patch_size=space.patch_size,
            tokens=space.tokens,
            pooling=space.pooling,
            embed=embed,
        )
        self.attention = nn.ModuleList(
            AttentionBlock(
                embed=embed,
                heads=layer.heads,
                head_dim=space.head_dim,
                norm_epsilon=space.norm_epsilon,
            )
            for layer in layers
        )
        self.ffn = nn.ModuleList(
            FfnBlock(embed=embed, ffn=layer.ffn, norm_epsilon=space.norm_epsilon)
            for layer in layers
        )
        self.head = Head(
            pooling=space.pooling,
            num_classes=space.num_classes,
            embed=embed,
            norm_epsilon=space.norm_epsilon,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, shape `(B, C, H, W)`, giving logits, shape `(B, classes)`."""
        x = self.stem(images)  # (B, T, E)
        for attention, ffn in zip(self.attention, self.ffn, strict=True):
            x = ffn(attention(x))
        logits: Tensor = self.head(x)
        return logits

    def network(self) -> Network:
        """The parts in order; input `images`, output `logits`."""
        names = ["x", *(f"x.{index}" for index in range(2 * len(self.ffn)))]
        parts = [Part(name="stem", module=self.stem, inputs=("images",), outputs=("x",))]
        for index, pair in enumerate(zip(self.attention, self.ffn, strict=True)):
            for kind, place, module in zip(("attention", "ffn"), (0, 1), pair, strict=True):
                at = 2 * index + place
                parts.append(
                    Part(
                        name=f"{kind}.{index}",
                        module=module,
                        inputs=(names[at],),
                        outputs=(names[at + 1],),
                    )
                )
        parts.append(Part(name="head", module=self.head, inputs=(names[-1],), outputs=("logits",)))
        return Network(
            parts=tuple(parts),
            inputs=(Port(name="images", shape=("batch", *self.image_shape)),),
            outputs=(Port(name="logits", shape=("batch", self.head.linear.out_features)),),
        )


class ElasticAttentionBlock(nn.Module):
    """Every `AttentionBlock` of at most these widths, in one."""

    def __init__(
        self, *, embed: int, heads: int, head_dim: int, norm_epsilon: float = NORM_EPSILON
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm = ElasticLayerNorm(embed, eps=norm_epsilon)
        self.qkv = ElasticLinear(embed, heads * 3 * head_dim)
        self.out = ElasticLinear(heads * head_dim, embed)

    def forward(self, x: Tensor, heads: int, dropout: float, policy: Policy = ()) -> Tensor:
        """`(B, T, E)` to `(B, T, E)`, with the first `heads` heads."""
        schemes = dict(policy)
        qkv = self.qkv(self.norm(x), heads * 3 * self.head_dim, schemes.get("qkv", FULL))
        out = self_attention(qkv, self.head_dim)
        out = self.out(out, x.shape[-1], schemes.get("attention_out", FULL))
        return x + (F.dropout(out, dropout) if dropout else out)


class ElasticFfnBlock(nn.Module):
    """Every `FfnBlock` of at most these widths, in one."""

    def __init__(self, *, embed: int, ffn: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = ElasticLayerNorm(embed, eps=norm_epsilon)
        self.up = ElasticLinear(embed, ffn)
        self.down = ElasticLinear(ffn, embed)

    def forward(self, x: Tensor, ffn: int, dropout: float, policy: Policy = ()) -> Tensor:
        """`(B, T, E)` to `(B, T, E)`, with the first `ffn` hidden features."""
        schemes = dict(policy)
        hidden = F.gelu(self.up(self.norm(x), ffn, schemes.get("ffn_in", FULL)))
        out = self.down(hidden, x.shape[-1], schemes.get("ffn_out", FULL))
        return x + (F.dropout(out, dropout) if dropout else out)


class ElasticStem(nn.Module):
    """Every `Stem` of at most this width, in one."""

    def __init__(
        self, *, channels: int, patch_size: int, tokens: int, pooling: str, embed: int
    ) -> None:
        super().__init__()
        self.patches = ElasticPatchEmbedding(channels, embed, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed)) if pooling == "cls" else None
        self.positions = nn.Parameter(torch.randn(1, tokens, embed) * POSITION_STD)

    def forward(self, images: Tensor, embed: int) -> Tensor:
        """`(B, C, H, W)` to `(B, T, E)`, with the first `embed` features."""
        x: Tensor = self.patches(images, embed).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            class_token = prefix(self.class_token, 1, 1, embed)
            x = torch.cat([class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + prefix(self.positions, *self.positions.shape[:-1], embed)


class ElasticHead(nn.Module):
    """Every `Head` of at most this width, in one."""

    def __init__(
        self, *, pooling: str, num_classes: int, embed: int, norm_epsilon: float = NORM_EPSILON
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = ElasticLayerNorm(embed, eps=norm_epsilon)
        self.linear = ElasticLinear(embed, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, E)` to `(B, classes)`."""
        x = x[:, 0] if self.pooling == "cls" else x.mean(dim=1)
        logits: Tensor = self.linear(self.norm(x))
        return logits


class VisionTransformerSupernet(WeightSharing[VisionTransformer]):
    """All subnets of a `VisionTransformerSpace` in one set of weights."""

    space: VisionTransformerSpace

    def __init__(self, space: VisionTransformerSpace) -> None:
        super().__init__()
        self.space = space
        largest = space.subnet(space.largest)
        embed = largest.embed
        self.stem = ElasticStem(
            channels=space.channels,
            patch_size=space.patch_size,
            tokens=space.tokens,
            pooling=space.pooling,
            embed=embed,
        )
        self.attention = nn.ModuleList(
            ElasticAttentionBlock(
                embed=embed,
                heads=layer.heads,
                head_dim=space.head_dim,
                norm_epsilon=space.norm_epsilon,
            )
            for layer in largest.layers
        )
        self.ffn = nn.ModuleList(
            ElasticFfnBlock(embed=embed, ffn=layer.ffn, norm_epsilon=space.norm_epsilon)
            for layer in largest.layers
        )
        self.head = ElasticHead(
            pooling=space.pooling,
            num_classes=space.num_classes,
            embed=embed,
            norm_epsilon=space.norm_epsilon,
        )

    def forward(self, images: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        """Run the subnet `arch`.

        Args:
            images: Shape `(B, C, H, W)`.
            arch: An architecture of the space.
            dropout: Share of block outputs that is dropped.

        Returns:
            Logits, shape `(B, classes)`.
        """
        if (plain := self.plain(arch, dropout)) is not None:
            return plain.forward(images)
        subnet = self.space.subnet(arch)
        x = self.stem(images, subnet.embed)  # (B, T, E)
        attention, ffn = tuple(self.attention), tuple(self.ffn)
        for layer in subnet.layers:
            x = attention[layer.index](x, layer.heads, dropout, layer.precision)
            x = ffn[layer.index](x, layer.ffn, dropout, layer.precision)
        logits: Tensor = self.head(x)
        return logits

    def outputs(self, arch: Architecture, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `VisionTransformer.network` gives, for its inputs in order."""
        return (self(*inputs, arch),)

    def build_plain(self, arch: Architecture) -> tuple[VisionTransformer, list[int]]:
        """See `WeightSharing.build_plain`."""
        subnet = self.space.subnet(arch)
        plain = VisionTransformer(self.space, embed=subnet.embed, layers=subnet.layers)
        return plain, [layer.index for layer in subnet.layers]
