"""Weights as integers: which ones stand for given floats. `O` outputs, `I` inputs, `G` groups.

How the integers of `w4` are chosen; the largest weight of a group, with its sign, is -8 scales:

- `nearest`: the others are rounded.
- `compensated`: GPTQ (arXiv:2210.17323): inputs one after the other, and what rounding one loses is
  made up by those to come, as far as they go together in calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.schemes import Scheme

Rounding = Literal["nearest", "compensated"]
ROUNDINGS: Final[tuple[Rounding, ...]] = ("nearest", "compensated")
DAMPING = 0.01
"""Share of the mean square that is added to every input's, for those that hardly vary."""


@dataclass(frozen=True, kw_only=True)
class IntegerWeight:
    """Weights as integers."""

    values: Tensor
    """Shape `(O, I)` int8; with groups `(O, G, 32)` uint8 in 0..15, the last one filled up."""
    scale: Tensor
    """Shape `(O,)` or `(O, G)`, fp32."""

    def floats(self, inputs: int) -> Tensor:
        """What they stand for, shape `(O, inputs)`."""
        if self.values.dim() == 2:
            return self.values * self.scale[:, None]
        return ((self.values - 8.0) * self.scale[..., None]).flatten(1)[:, :inputs]


def integer_weight(
    weight: Tensor,
    scheme: Scheme,
    moment: Tensor | None = None,
    rounding: Rounding = "compensated",
) -> IntegerWeight:
    """Quantize weights.

    Args:
        weight: Shape `(O, I)`.
        scheme: One with integers.
        moment: Mean of the inputs' products in calibration, shape `(I, I)`; without it, or where
            it is too large for fp32, weights in groups are rounded to the nearest.
        rounding: How, for weights in groups.

    Raises:
        ValueError: The scheme has no integers.
    """
    if not scheme.integer:
        raise ValueError(f"scheme {scheme.name} has no integer weights")
    if scheme.group is None:
        scale = _positive(weight.abs().amax(dim=1) / 127)
        values = torch.round(weight / scale[:, None]).clamp(-127, 127)
        return IntegerWeight(values=values.to(torch.int8), scale=scale)
    missing = -weight.shape[1] % scheme.group
    padded = F.pad(weight, (0, missing))  # (O, G * 32)
    if moment is None or rounding == "nearest" or not moment.isfinite().all():
        groups = padded.view(weight.shape[0], -1, scheme.group)
        scale = _nearest_scale(groups)
        return IntegerWeight(values=_in_16(groups, scale).to(torch.uint8), scale=scale)
    moment = F.pad(moment, (0, missing, 0, missing))  # (G * 32, G * 32)
    return _compensated(padded, moment, scheme.group)


def _compensated(weight: Tensor, moment: Tensor, group: int) -> IntegerWeight:
    """GPTQ for weights of shape `(O, G * 32)`."""
    outputs, inputs = weight.shape
    left = weight.clone()
    damping = DAMPING * moment.diagonal().mean().clamp(min=1e-12)
    damped = moment + damping * torch.eye(inputs)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)))
    upper = inverse.mT  # of the inverse, as GPTQ has it
    values = torch.empty(outputs, inputs // group, group, dtype=torch.uint8)
    scales = torch.empty(outputs, inputs // group)
    for place in range(inputs // group):
        columns = slice(place * group, (place + 1) * group)
        scale = _nearest_scale(left[:, None, columns])  # (O, 1)
        scales[:, place] = scale[:, 0]
        for index in range(place * group, (place + 1) * group):
            integer = _in_16(left[:, None, index, None], scale)[:, 0, 0]  # (O,)
            values[:, place, index - place * group] = integer.to(torch.uint8)
            lost = (left[:, index] - (integer - 8) * scale[:, 0]) / upper[index, index]
            left[:, index + 1 :] -= lost[:, None] * upper[index, index + 1 :]
    return IntegerWeight(values=values, scale=scales)


def _nearest_scale(groups: Tensor) -> Tensor:
    """Shape `(O, G, 32)` to `(O, G)`: the largest weight is -8 of it."""
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))[..., 0]
    scale = largest / -8
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _in_16(groups: Tensor, scale: Tensor) -> Tensor:
    """Integers 0..15 as floats."""
    return (torch.round(groups / scale[..., None]) + 8).clamp(0, 15)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
