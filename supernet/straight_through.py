"""Rounding that lets gradients through: what quantization-aware training runs with.

Forward, a tensor is what its scheme makes of it; backward, as if it had not been rounded (the
straight-through estimator, arXiv:1308.3432). What is fitted to a subnet's inputs after training is
not known yet: weights are rounded to the nearest, and 8-bit inputs have the range of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.schemes import Scheme
from supernet.quantization import rounded_to_8_bits
from supernet.stored import rounded


def rounded_weight(weight: Tensor, scheme: Scheme) -> Tensor:
    """Weights, shape `(O, I)`, as a scheme rounds them; gradients go to `weight`."""
    with torch.no_grad():
        found = rounded(weight.detach(), scheme)
    return weight + (found - weight).detach()


def rounded_input(x: Tensor, scheme: Scheme) -> Tensor:
    """Inputs, shape `(*batch, I)`, as a scheme rounds them; gradients go to `x`."""
    if scheme.activations == "float":
        return x
    with torch.no_grad():
        found = rounded_to_8_bits(x, *torch.aminmax(x))
    return x + (found - x).detach()
