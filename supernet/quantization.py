"""Linear layers in few bits, with the numbers that onnxruntime's CPU kernels give.

Each scheme of `search_spaces.schemes` is defined here once: the export (`latency.policy`) writes
the very integers and scales that the simulation multiplies. All rounding is to the nearest, ties
to even. `O` outputs, `I` inputs.

- `fp16`, `bf16`: weights rounded to 16 bits, multiplied in fp32.
- `w8`: weights `q * scale`, `q` in -127..127 with one scale per output, multiplied in fp32.
- `w4`: weights `(q - 8) * scale`, `q` in 0..15 with one scale per output and 32 inputs; multiplied
  in fp32. How `q` and the scale are chosen is in `supernet.integers`.
- `w4_nbits`: the same numbers, multiplied without making floats of all weights first (MatMulNBits).
- `w8a8`: weights as in `w8`; inputs `(q - zero) * scale`, `q` in 0..255, one range for the whole
  tensor, known before; products of integers summed exactly, then scaled (MatMulIntegerToFloat).
- `w8a8_dynamic`: the same with the range of each call's input (DynamicQuantizeLinear).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.schemes import SCHEMES, Policy, Scheme
from supernet.integers import IntegerWeight, Rounding, integer_weight
from supernet.stored import StoredLayer, float_weight

LEVELS = 255
"""Steps between the lowest and the highest 8-bit input."""

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest input of linear layers, by the name of the module."""
Moments = Mapping[str, Tensor]
"""Mean of the products of their inputs, shape `(I, I)` each."""
Found = TypeVar("Found")


def input_scale(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of 8-bit inputs between `low` and `high`; 0 is always exact."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low) / LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, torch.round((-low / scale).clamp(0, LEVELS))


def steps_from_zero(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The 8-bit integers of inputs, less the zero point; as floats, shape as `x`."""
    return (torch.round(x / scale) + zero).clamp(0, LEVELS) - zero


def rounded_to_8_bits(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Inputs as 8 bits between `low` and `high` give them."""
    scale, zero = input_scale(low, high)
    return steps_from_zero(x, scale, zero) * scale


class QuantizedLinear(nn.Linear):
    """A linear layer that gives what the runtime gives under a scheme; without gradients.

    Args:
        linear: The layer in fp32, whose parameters are taken over as they are.
        scheme: Any but fp32.
        bounds: Lowest and highest input, for a scheme with static activations.
        moment: Mean of the inputs' products, shape `(I, I)`, for weights in groups; without it
            they are rounded to the nearest.
        rounding: How weights in groups are rounded; see `supernet.integers`.

    Raises:
        ValueError: The bounds that the scheme needs are missing.
    """

    def __init__(
        self,
        linear: nn.Linear,
        scheme: Scheme,
        bounds: tuple[float, float] | None = None,
        moment: Tensor | None = None,
        rounding: Rounding = "compensated",
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scheme, self.rounding = scheme, rounding
        self.moment = moment if scheme.group is not None else None
        self.scale, self.zero = torch.ones(()), torch.zeros(())
        if scheme.activations == "static":
            if bounds is None:
                raise ValueError(
                    f"scheme {scheme.name} needs the range of its inputs; calibrate first"
                )
            self.scale, self.zero = input_scale(*torch.tensor(bounds, dtype=torch.float32))
        self._multiplied: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`(*batch, I)` to `(*batch, O)`."""
        weight, weight_scale = self._weight()
        if self.scheme.activations == "float":
            return F.linear(x, weight, self.bias)
        scale, zero = self.scale, self.zero
        if self.scheme.activations == "dynamic":
            scale, zero = input_scale(x.amin(), x.amax())
        out = F.linear(steps_from_zero(x, scale, zero), weight) * (scale * weight_scale)
        return out if self.bias is None else out + self.bias

    def integers(self) -> IntegerWeight:
        """The weights as the file holds them."""
        with torch.inference_mode(False), torch.no_grad():
            return integer_weight(self.weight.detach(), self.scheme, self.moment, self.rounding)

    def _weight(self) -> tuple[Tensor, Tensor]:
        """What inputs are multiplied with, and what the products are: kept while they stay."""
        state = (self.weight.data_ptr(), self.weight._version)
        if self._multiplied is None or self._multiplied[0] != state:
            # Outside of inference mode: what is made there is not for any other
            with torch.inference_mode(False), torch.no_grad():
                weight, scale = self.weight.detach(), torch.ones(())
                if not self.scheme.integer:
                    weight = float_weight(weight, self.scheme).to(weight.dtype)
                elif self.scheme.activations == "float":
                    weight = self.integers().floats(self.in_features)
                else:
                    integers = self.integers()
                    weight, scale = integers.values.to(weight.dtype), integers.scale
            self._multiplied = state, weight, scale
        return self._multiplied[1:]


def quantize_block(
    block: nn.Module,
    policy: Policy,
    ranges: Ranges,
    moments: Moments | None = None,
    rounding: Rounding = "compensated",
) -> None:
    """Give the linear layers of a plain block their schemes, in place.

    Args:
        block: A block of a family, whose `LINEARS` names the layers of each part.
        policy: Scheme of each part that is not fp32.
        ranges: Of the inputs, for schemes with static activations.
        moments: Of the inputs, for weights in groups.
        rounding: How these are rounded.

    Raises:
        ValueError: A range is missing.
    """
    linears: Mapping[str, tuple[str, ...]] = block.LINEARS  # type: ignore[assignment]
    for part, name in policy:
        for layer in linears[part]:
            linear = block.get_submodule(layer)
            if not isinstance(linear, nn.Linear):
                setattr(block, layer, StoredLayer(linear, SCHEMES[name]))
                continue
            moment = (moments or {}).get(layer)
            quantized = QuantizedLinear(linear, SCHEMES[name], ranges.get(layer), moment, rounding)
            setattr(block, layer, quantized)


def within(found: Mapping[str, Found], path: str) -> dict[str, Found]:
    """What was observed below a module, by the names there."""
    start = f"{path}."
    return {
        name.removeprefix(start): value for name, value in found.items() if name.startswith(start)
    }


def full_precision(module: nn.Module) -> nn.Module:
    """The module with fp32 layers on the same parameters; itself where all are."""
    if isinstance(module, StoredLayer):
        return module.layer
    if isinstance(module, QuantizedLinear):
        linear = nn.Linear.__new__(nn.Linear)
        nn.Module.__init__(linear)
        linear.in_features, linear.out_features = module.in_features, module.out_features
        linear.weight, linear.bias = module.weight, module.bias
        return linear.train(module.training)
    if not any(isinstance(one, QuantizedLinear | StoredLayer) for one in module.modules()):
        return module
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else full_precision(child)
        for name, child in module._modules.items()
    }
    return twin
