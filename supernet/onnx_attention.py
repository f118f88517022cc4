"""Attention blocks as ONNX has them: one operator takes the queries, keys and values of all heads.

A supernet keeps together what belongs to one head, so that fewer heads are a prefix. A runtime has
to take that apart again: in onnxruntime the Reshape, Transpose, Slice and Squeeze nodes cost a
fifth to a half of a block. So the rows of the projection are put in another order for it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.onnx import ops

from supernet import decoder, vit


def in_onnx_form(module: nn.Module) -> nn.Module:
    """A module for export that computes the same; the module itself where it is no attention.

    Its linear layers have the names that they had, and their schemes.
    """
    if isinstance(module, vit.AttentionBlock):
        return SelfAttention(module)
    if isinstance(module, decoder.AttentionBlock):
        return GroupedAttention(module)
    return module


class SelfAttention(nn.Module):
    """`vit.AttentionBlock` with all queries first, then all keys, then all values."""

    def __init__(self, block: vit.AttentionBlock) -> None:
        super().__init__()
        self.heads = block.qkv.out_features // (3 * block.head_dim)
        rows = torch.arange(block.qkv.out_features).view(self.heads, 3, block.head_dim)
        self.norm, self.out = block.norm, block.out
        self.qkv = _with_rows(block.qkv, rows.transpose(0, 1).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, E)` to `(B, T, E)`."""
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)  # (B, T, H * D) each
        mixed = ops.attention(query, key, value, q_num_heads=self.heads, kv_num_heads=self.heads)
        out: Tensor = self.out(mixed[0])
        return x + out


class GroupedAttention(nn.Module):
    """`decoder.AttentionBlock` with all queries first, then all keys, then all values."""

    def __init__(self, block: decoder.AttentionBlock) -> None:
        super().__init__()
        group, head_dim = block.group, block.head_dim
        self.kv_heads = block.qkv.out_features // ((group + 2) * head_dim)
        self.heads = self.kv_heads * group
        self.head_dim = head_dim
        rows = torch.arange(block.qkv.out_features).view(self.kv_heads, group + 2, head_dim)
        parts = rows[:, :group], rows[:, group], rows[:, group + 1]
        self.norm, self.out = block.norm, block.out
        self.qkv = _with_rows(block.qkv, torch.cat([part.flatten() for part in parts]))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, S, E)` to `(B, S, E)`, and the keys and values, old and new."""
        sizes = [heads * self.head_dim for heads in (self.heads, self.kv_heads, self.kv_heads)]
        query, key, value = self.qkv(self.norm(x)).split(sizes, dim=-1)
        query = ops.rotary_embedding(query, cos, sin, num_heads=self.heads)
        key = ops.rotary_embedding(key, cos, sin, num_heads=self.kv_heads)
        mixed, keys, values, _ = ops.attention(
            query, key, value, mask, *past, q_num_heads=self.heads, kv_num_heads=self.kv_heads
        )
        return x + self.out(mixed), keys, values


def _with_rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    """A linear layer of any scheme with its outputs in another order."""
    twin = copy.copy(linear)
    twin._parameters = {
        name: None if value is None else nn.Parameter(value.detach()[rows], requires_grad=False)
        for name, value in linear._parameters.items()
    }
    return twin
