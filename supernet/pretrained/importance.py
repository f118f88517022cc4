"""How much the loss owes to each neuron, head and embedding channel of the largest subnet.

First-order Taylor scores (arXiv:1611.06440; for heads arXiv:1905.10650): activation times gradient,
summed over the features that belong together, is how much the loss would change if they were zero.
It is taken token by token, so that what helps one and harms another does not cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.families import Supernet


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Scores, the larger the more important; they compare within one tensor."""

    embed: Tensor
    """Of the embedding channels of the whole network, shape `(E,)`."""
    heads: tuple[Tensor, ...]
    """Of the key/value heads of each layer, with their query heads, shape `(K,)` each."""
    ffn: tuple[Tensor, ...]
    """Of the hidden features of each feed-forward part, shape `(F,)` each."""


def measure_importance(model: Supernet, batches: Iterable[tuple[Tensor, Tensor]]) -> Importance:
    """Score the parts of the largest subnet on some batches.

    Args:
        model: The supernet; its weights and gradients stay as they are.
        batches: Inputs, and targets of shape `(*batch,)`, int64.
    """
    space = model.space
    groups = [layer.kv_heads for layer in space.subnet(space.largest).layers]
    embed = _Scores(None)
    heads = [_Scores(count) for count in groups]
    ffn = [_Scores(None) for _ in groups]
    # Wherever the residual stream is read.
    readers = [block.norm for block in (*model.attention, *model.ffn, model.head)]
    with ExitStack() as stack:
        for module, scores in (
            *((reader, embed) for reader in readers),
            *zip((block.out for block in model.attention), heads, strict=True),
            *zip((block.down for block in model.ffn), ffn, strict=True),
        ):
            stack.callback(scores.watch(module).remove)
        was_training = model.training
        model.eval()
        with torch.enable_grad():
            for inputs, targets in batches:
                logits = model(inputs, space.largest)  # (*batch, classes)
                # Summed, so that samples do not depend on how many there are beside them.
                loss = F.cross_entropy(
                    logits.flatten(0, -2).float(), targets.flatten(), reduction="sum"
                )
                parameters = [p for p in model.parameters() if p.requires_grad]
                torch.autograd.grad(loss, parameters, allow_unused=True)
        model.train(was_training)
    return Importance(
        embed=embed.total,
        heads=tuple(scores.total for scores in heads),
        ffn=tuple(scores.total for scores in ffn),
    )


class _Scores:
    """Scores of the parts of a module's input, added up over tokens.

    Args:
        parts: Equal stretches of the input's features to score; None scores every feature.
    """

    def __init__(self, parts: int | None) -> None:
        self.parts = parts
        self.total = torch.zeros(0)

    def watch(self, module: nn.Module) -> Any:
        """Score what goes into `module` whenever a loss goes backward through it."""

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x: Tensor = inputs[0]  # (B, T, features)
            x.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._add(x.detach() * gradient)
            )

        return module.register_forward_pre_hook(before)

    def _add(self, products: Tensor) -> None:
        products = products.flatten(0, -2)  # (tokens of all samples, features)
        if self.parts is not None:
            products = products.view(len(products), self.parts, -1).sum(dim=-1)
        score = products.abs().sum(dim=0)
        self.total = self.total + score if len(self.total) else score
