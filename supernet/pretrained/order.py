"""What matters most comes first: subnets are prefixes, so that the order decides what they keep."""

from __future__ import annotations

import torch
from torch import Tensor

from supernet.families import Supernet
from supernet.pretrained.importance import Importance

EMBED = {
    "stem.patches.weight": 0,
    "stem.patches.bias": 0,
    "stem.class_token": 2,
    "stem.positions": 2,
    "stem.tokens.weight": 1,
    "norm.weight": 0,
    "norm.bias": 0,
    "qkv.weight": 1,
    "out.weight": 0,
    "out.bias": 0,
    "gate.weight": 1,
    "up.weight": 1,
    "down.weight": 0,
    "down.bias": 0,
    "head.linear.weight": 1,
}
"""The dimension of each parameter that the embedding channels are."""
HEADS = {"qkv.weight": 0, "qkv.bias": 0, "out.weight": 1}
"""The dimension that the heads are, a stretch of features each."""
FFN = {"gate.weight": 0, "up.weight": 0, "up.bias": 0, "down.weight": 1}
"""The dimension that the hidden features of a feed-forward part are."""


@torch.no_grad()
def reorder(model: Supernet, importance: Importance) -> None:
    """Put what is most important first, everywhere; the largest subnet computes the same.

    Args:
        model: The supernet, changed in place.
        importance: What `measure_importance` gave for it.
    """
    embed = _order(importance.embed)
    for name, parameter in model.named_parameters():
        part, _, rest = name.partition(".")
        layer, _, leaf = rest.partition(".")
        key = leaf if layer.isdigit() else name
        key = "norm." + key.removeprefix("head.norm.") if key.startswith("head.norm.") else key
        value = parameter.detach()
        if key in EMBED:
            value = value.index_select(EMBED[key], embed)
        if part == "attention" and key in HEADS:
            order = _order(importance.heads[int(layer)])
            stretch = value.shape[HEADS[key]] // len(order)
            features = order[:, None] * stretch + torch.arange(stretch)
            value = value.index_select(HEADS[key], features.flatten())
        if part == "ffn" and key in FFN:
            value = value.index_select(FFN[key], _order(importance.ffn[int(layer)]))
        parameter.copy_(value)


def _order(scores: Tensor) -> Tensor:
    """Indices from the largest score to the smallest; equal ones stay as they were."""
    return torch.argsort(scores, descending=True, stable=True)
