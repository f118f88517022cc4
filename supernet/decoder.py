"""Decoder language model (Llama, arXiv:2302.13971): a plain network and its elastic supernet.

RMSNorm, rotary positions (arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped-query attention
(arXiv:2305.13245), and a key/value cache for decoding.

Shapes: `B` sequences, `S` new tokens, `P` cached tokens, `E` embedding width, `K` key/value heads
of `G` query heads each, `D` features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.decoder import ROTARY_BASE, DecoderSpace
from search_spaces.schemes import FULL, Policy
from search_spaces.space import Architecture
from search_spaces.transformer import Layer
from supernet.elastic import ElasticEmbedding, ElasticLinear, ElasticRMSNorm
from supernet.parts import Network, Part, Port
from supernet.sharing import WeightSharing

NORM_EPSILON = DecoderSpace.default_norm_epsilon

Positions = tuple[Tensor, Tensor, Tensor]
"""Cosines and sines, shape `(B, S, D / 2)`, and the additive mask, shape `(S, P + S)`."""


POSITIONS = ("cos", "sin", "mask")


def cached(name: str, layer: int) -> tuple[str, str]:
    """Names of a layer's keys and values."""
    return f"{name}.{layer}.key", f"{name}.{layer}.value"


class Rotary(nn.Module):
    """Angles of rotary position embeddings, and which keys each query may see."""

    cos: Tensor
    sin: Tensor

    def __init__(self, *, context: int, head_dim: int, base: float = ROTARY_BASE) -> None:
        super().__init__()
        frequencies = base ** (-torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.arange(context)[:, None] * frequencies  # (context, D / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, shape: Sequence[int], past: int) -> Positions:
        """Positions of new tokens, shape `(B, S)`, after `past` cached ones."""
        batch, new = shape
        cos = self.cos[past : past + new].expand(batch, -1, -1)
        sin = self.sin[past : past + new].expand(batch, -1, -1)
        keys = torch.arange(past + new, device=cos.device)
        hidden = keys[None, :] > keys[past:, None]  # (S, P + S)
        mask = torch.zeros(hidden.shape, dtype=cos.dtype, device=cos.device)
        return cos, sin, mask.masked_fill(hidden, -torch.inf)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs `(i, i + D / 2)` of the last dimension by the angle of their position."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def grouped_attention(
    qkv: Tensor,
    positions: Positions,
    past: Sequence[Tensor],
    group: int,
    head_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal grouped-query attention over cached and new tokens.

    Args:
        qkv: For one key/value head after the other, its query heads, key and value, shape
            `(B, S, K * (G + 2) * D)`, so that the first groups are a prefix.
        positions: What `Rotary` gave.
        past: Cached keys and values, shape `(B, K, P, D)` each; nothing without a cache.
        group: `G`.
        head_dim: `D`.

    Returns:
        Output, shape `(B, S, K * G * D)`, and keys and values, shape `(B, K, P + S, D)` each.
    """
    cos, sin, mask = positions
    batch, new, _ = qkv.shape
    heads = qkv.view(batch, new, -1, group + 2, head_dim)  # (B, S, K, G + 2, D)
    angles = cos[:, :, None, None], sin[:, :, None, None]  # (B, S, 1, 1, D / 2) each
    turned = rotate(heads[..., : group + 1, :], *angles)  # (B, S, K, G + 1, D)
    key = turned[..., group, :].transpose(1, 2)  # (B, K, S, D)
    value = heads[..., group + 1, :].transpose(1, 2)  # (B, K, S, D)
    if past:
        key = torch.cat([past[0], key], dim=2)
        value = torch.cat([past[1], value], dim=2)
    # The queries of a group lie one after the other, so that keys need not be repeated.
    query = turned[..., :group, :].permute(0, 2, 3, 1, 4)  # (B, K, G, S, D)
    query = query.reshape(batch, -1, group * new, head_dim)  # (B, K, G * S, D)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask.repeat(group, 1))
    out = out.view(batch, -1, group, new, head_dim).permute(0, 3, 1, 2, 4)  # (B, S, K, G, D)
    return out.reshape(batch, new, -1), key, value


class AttentionBlock(nn.Module):
    """Pre-norm grouped-query attention with a residual connection."""

    LINEARS: ClassVar = {"qkv": ("qkv",), "attention_out": ("out",)}

    def __init__(
        self,
        *,
        embed: int,
        kv_heads: int,
        group: int,
        head_dim: int,
        norm_epsilon: float = NORM_EPSILON,
    ) -> None:
        super().__init__()
        self.group = group
        self.head_dim = head_dim
        self.norm = nn.RMSNorm(embed, eps=norm_epsilon)
        self.qkv = nn.Linear(embed, kv_heads * (group + 2) * head_dim, bias=False)
        self.out = nn.Linear(kv_heads * group * head_dim, embed, bias=False)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, S, E)` to `(B, S, E)`, and the keys and values, old and new."""
        qkv = self.qkv(self.norm(x))
        out, key, value = grouped_attention(qkv, (cos, sin, mask), past, self.group, self.head_dim)
        return x + self.out(out), key, value


class FfnBlock(nn.Module):
    """Pre-norm SwiGLU with a residual connection."""

    LINEARS: ClassVar = {"ffn_in": ("gate", "up"), "ffn_out": ("down",)}

    def __init__(self, *, embed: int, ffn: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(embed, eps=norm_epsilon)
        self.gate = nn.Linear(embed, ffn, bias=False)
        self.up = nn.Linear(embed, ffn, bias=False)
        self.down = nn.Linear(ffn, embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, E)` to `(B, S, E)`."""
        hidden = self.norm(x)
        out: Tensor = self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return x + out


class Stem(nn.Module):
    """Token embedding and positions."""

    LINEARS: ClassVar = {"stem": ("tokens",)}

    def __init__(self, space: DecoderSpace, *, embed: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(space.vocabulary, embed)
        self.rotary = Rotary(context=space.context, head_dim=space.head_dim, base=space.rotary_base)

    def forward(
        self, tokens: Tensor, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, shape `(B, S)`, and any cached keys to `(B, S, E)` and their positions."""
        x: Tensor = self.tokens(tokens)
        return x, *self.rotary(tokens.shape, 0 if past is None else past.shape[2])


class Head(nn.Module):
    """Normalisation and the scores of every token of the vocabulary."""

    LINEARS: ClassVar = {"head": ("linear",)}

    def __init__(self, *, embed: int, vocabulary: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(embed, eps=norm_epsilon)
        self.linear = nn.Linear(embed, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, E)` to `(B, S, vocabulary)`."""
        logits: Tensor = self.linear(self.norm(x))
        return logits


class Decoder(nn.Module):
    """A plain, dense decoder; layers may differ in heads and FFN width.

    Args:
        space: Where vocabulary, context and head shape are taken from.
        embed: Embedding width.
        layers: Widths of the layers; may be empty, which leaves embedding and head.
    """

    def __init__(self, space: DecoderSpace, *, embed: int, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.head_dim = space.head_dim
        self.kv_heads = [layer.kv_heads for layer in layers]
        self.stem = Stem(space, embed=embed)
        self.attention = nn.ModuleList(
            AttentionBlock(
                embed=embed,
                kv_heads=layer.kv_heads,
                group=space.group,
                head_dim=space.head_dim,
                norm_epsilon=space.norm_epsilon,
            )
            for layer in layers
        )
        self.ffn = nn.ModuleList(
            FfnBlock(embed=embed, ffn=layer.ffn, norm_epsilon=space.norm_epsilon)
            for layer in layers
        )
        self.head = Head(embed=embed, vocabulary=space.vocabulary, norm_epsilon=space.norm_epsilon)

    def forward(self, tokens: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Predict the next token after each.

        Args:
            tokens: Shape `(B, S)`, int64.
            past: Keys and values of one layer after the other, shape `(B, K, P, D)` each; nothing
                where there is no cache.

        Returns:
            Logits, shape `(B, S, vocabulary)`, then keys and values of one layer after the other,
            shape `(B, K, P + S, D)` each.
        """
        x, *positions = self.stem(tokens, *past[:1])  # (B, S, E)
        present: list[Tensor] = []
        for index, (attention, ffn) in enumerate(zip(self.attention, self.ffn, strict=True)):
            x, key, value = attention(x, *positions, *past[2 * index : 2 * index + 2])
            present += [key, value]
            x = ffn(x)
        return self.head(x), *present

    def network(self) -> Network:
        """The parts in order.

        Inputs `tokens` and, per layer, `past.i.key` and `past.i.value`; outputs `logits` and, per
        layer, `present.i.key` and `present.i.value`. A network without layers takes `past.0.key`
        for its length.
        """
        parts = [
            Part(
                name="stem",
                module=self.stem,
                inputs=("tokens", "past.0.key"),
                outputs=("x", *POSITIONS),
            )
        ]
        names = ["x", *(f"x.{index}" for index in range(2 * len(self.ffn)))]
        for index, (attention, ffn) in enumerate(zip(self.attention, self.ffn, strict=True)):
            parts += [
                Part(
                    name=f"attention.{index}",
                    module=attention,
                    inputs=(names[2 * index], *POSITIONS, *cached("past", index)),
                    outputs=(names[2 * index + 1], *cached("present", index)),
                ),
                Part(
                    name=f"ffn.{index}",
                    module=ffn,
                    inputs=(names[2 * index + 1],),
                    outputs=(names[2 * index + 2],),
                ),
            ]
        parts.append(Part(name="head", module=self.head, inputs=(names[-1],), outputs=("logits",)))
        vocabulary = self.head.linear.out_features
        return Network(
            parts=tuple(parts),
            inputs=(
                Port(name="tokens", shape=("batch", "sequence"), tokens=vocabulary),
                *self.cache_ports("past", "past"),
            ),
            outputs=(
                Port(name="logits", shape=("batch", "sequence", vocabulary)),
                *self.cache_ports("present", "total"),
            ),
        )

    def cache_ports(self, name: str, length: str) -> list[Port]:
        """The key/value cache before (`past`) or after (`present`) the new tokens."""
        kv_heads = self.kv_heads
        if not kv_heads and name == "past":
            return [Port(name=cached(name, 0)[0], shape=("batch", 1, length, self.head_dim))]
        return [
            Port(name=port, shape=("batch", heads, length, self.head_dim))
            for index, heads in enumerate(kv_heads)
            for port in cached(name, index)
        ]


class ElasticAttentionBlock(nn.Module):
    """Every `AttentionBlock` of at most these widths, in one."""

    def __init__(
        self,
        *,
        embed: int,
        kv_heads: int,
        group: int,
        head_dim: int,
        norm_epsilon: float = NORM_EPSILON,
    ) -> None:
        super().__init__()
        self.group = group
        self.head_dim = head_dim
        self.norm = ElasticRMSNorm(embed, eps=norm_epsilon)
        self.qkv = ElasticLinear(embed, kv_heads * (group + 2) * head_dim, bias=False)
        self.out = ElasticLinear(kv_heads * group * head_dim, embed, bias=False)

    def forward(
        self,
        x: Tensor,
        positions: Positions,
        past: Sequence[Tensor],
        kv_heads: int,
        dropout: float,
        policy: Policy = (),
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`AttentionBlock.forward` with the first `kv_heads` groups of heads."""
        schemes = dict(policy)
        width = kv_heads * (self.group + 2) * self.head_dim
        qkv = self.qkv(self.norm(x), width, schemes.get("qkv", FULL))
        out, key, value = grouped_attention(qkv, positions, past, self.group, self.head_dim)
        out = self.out(out, x.shape[-1], schemes.get("attention_out", FULL))
        return x + (F.dropout(out, dropout) if dropout else out), key, value


class ElasticFfnBlock(nn.Module):
    """Every `FfnBlock` of at most these widths, in one."""

    def __init__(self, *, embed: int, ffn: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = ElasticRMSNorm(embed, eps=norm_epsilon)
        self.gate = ElasticLinear(embed, ffn, bias=False)
        self.up = ElasticLinear(embed, ffn, bias=False)
        self.down = ElasticLinear(ffn, embed, bias=False)

    def forward(self, x: Tensor, ffn: int, dropout: float, policy: Policy = ()) -> Tensor:
        """`(B, S, E)` to `(B, S, E)`, with the first `ffn` hidden features."""
        schemes = dict(policy)
        hidden, first = self.norm(x), schemes.get("ffn_in", FULL)
        hidden = F.silu(self.gate(hidden, ffn, first)) * self.up(hidden, ffn, first)
        out = self.down(hidden, x.shape[-1], schemes.get("ffn_out", FULL))
        return x + (F.dropout(out, dropout) if dropout else out)


class ElasticStem(nn.Module):
    """Every `Stem` of at most this width, in one."""

    def __init__(self, space: DecoderSpace, *, embed: int) -> None:
        super().__init__()
        self.tokens = ElasticEmbedding(space.vocabulary, embed)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.rotary = Rotary(context=space.context, head_dim=space.head_dim, base=space.rotary_base)

    def forward(self, tokens: Tensor, past: Tensor | None, embed: int) -> tuple[Tensor, Positions]:
        """`Stem.forward` with the first `embed` features."""
        x: Tensor = self.tokens(tokens, embed)
        return x, self.rotary(tokens.shape, 0 if past is None else past.shape[2])


class ElasticHead(nn.Module):
    """Every `Head` of at most this width, in one."""

    def __init__(self, *, embed: int, vocabulary: int, norm_epsilon: float = NORM_EPSILON) -> None:
        super().__init__()
        self.norm = ElasticRMSNorm(embed, eps=norm_epsilon)
        self.linear = ElasticLinear(embed, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, E)` to `(B, S, vocabulary)`."""
        logits: Tensor = self.linear(self.norm(x))
        return logits


class DecoderSupernet(WeightSharing[Decoder]):
    """All subnets of a `DecoderSpace` in one set of weights."""

    space: DecoderSpace

    def __init__(self, space: DecoderSpace) -> None:
        super().__init__()
        self.space = space
        largest = space.subnet(space.largest)
        embed = largest.embed
        self.stem = ElasticStem(space, embed=embed)
        self.attention = nn.ModuleList(
            ElasticAttentionBlock(
                embed=embed,
                kv_heads=layer.kv_heads,
                group=space.group,
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
            embed=embed, vocabulary=space.vocabulary, norm_epsilon=space.norm_epsilon
        )

    def forward(self, tokens: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        """Run the subnet `arch` without a cache.

        Args:
            tokens: Shape `(B, S)`, int64.
            arch: An architecture of the space.
            dropout: Share of block outputs that is dropped.

        Returns:
            Logits, shape `(B, S, vocabulary)`.
        """
        return self.decode(tokens, arch, (), dropout)[0]

    def decode(
        self, tokens: Tensor, arch: Architecture, past: Sequence[Tensor], dropout: float = 0.0
    ) -> tuple[Tensor, ...]:
        """Run the subnet `arch` after cached tokens; see `Decoder.forward`."""
        if (plain := self.plain(arch, dropout)) is not None:
            return plain.forward(tokens, *past)
        subnet = self.space.subnet(arch)
        x, positions = self.stem(tokens, past[0] if past else None, subnet.embed)  # (B, S, E)
        present: list[Tensor] = []
        attention, ffn = tuple(self.attention), tuple(self.ffn)
        for place, layer in enumerate(subnet.layers):
            cached = past[2 * place : 2 * place + 2]
            x, key, value = attention[layer.index](
                x, positions, cached, layer.kv_heads, dropout, layer.precision
            )
            present += [key, value]
            x = ffn[layer.index](x, layer.ffn, dropout, layer.precision)
        return self.head(x), *present

    def outputs(self, arch: Architecture, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `Decoder.network` gives, for its inputs in order."""
        tokens, *past = inputs
        return self.decode(tokens, arch, past)

    def build_plain(self, arch: Architecture) -> tuple[Decoder, list[int]]:
        """See `WeightSharing.build_plain`."""
        subnet = self.space.subnet(arch)
        plain = Decoder(self.space, embed=subnet.embed, layers=subnet.layers)
        return plain, [layer.index for layer in subnet.layers]
