"""What each linear layer loses under each scheme, without evaluating a single policy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.schemes import FULL, PARTS_OF, SCHEMES
from search_spaces.space import Architecture
from search_spaces.transformer import gene
from supernet.quantization import QuantizedLinear
from supernet.sharing import WeightSharing

Sensitivities = Mapping[str, Mapping[str, float]]
"""By the name of a gene and a scheme: nats per prediction; 0 for fp32."""


def sensitivities(
    model: WeightSharing[Any], arch: Architecture, inputs: Tensor, targets: Tensor
) -> Sensitivities:
    """Gradient-weighted output error of each gene's linear layers under each scheme.

    The loss of a small error `e` of an output is about half the sum of `(g * e)^2`, where `g` is
    the gradient of the loss: the diagonal of the Fisher information stands for the Hessian, as in
    Model Optimizer's AutoQuantize. Layers are looked at one by one, each with the inputs that it
    has in fp32.

    Args:
        model: The supernet; calibrated if a scheme of the space has static activations.
        arch: The subnet, whatever its policy.
        inputs: A batch as `forward` takes it.
        targets: Its labels, or the next tokens, int64.
    """
    space = model.space
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen[name] = given[0].detach(), output

    with torch.inference_mode(False), torch.enable_grad():
        plain = model.extract(space.with_scheme(arch, FULL))
        for name, child in plain.named_modules():
            if isinstance(child, nn.Linear):
                child.register_forward_hook(partial(note, name))
        results = plain(inputs)
        logits = results if isinstance(results, Tensor) else results[0]
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
    static = any(SCHEMES[name].activations == "static" for name in space.precision)
    ranges = model.ranges(arch) if static else {}
    groups = any(SCHEMES[name].group is not None for name in space.precision)
    moments = model.moments(arch) if groups else {}

    def quantized(name: str, scheme: str) -> nn.Module:
        linear = plain.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        return QuantizedLinear(linear, SCHEMES[scheme], ranges.get(name), moments.get(name))

    found: dict[str, dict[str, float]] = {}
    for place, layer in enumerate(space.subnet(arch).layers):
        for kind, parts in PARTS_OF.items():
            for part in parts:
                names = [
                    f"{kind}.{place}.{one}"
                    for one in plain.get_submodule(f"{kind}.{place}").LINEARS[part]
                ]
                found[gene(part, layer.index)] = {
                    scheme: sum(
                        _loss(quantized(name, scheme), *seen[name]) if scheme != FULL else 0.0
                        for name in names
                    )
                    / targets.numel()
                    for scheme in space.precision
                }
    return found


@torch.no_grad()
def _loss(layer: nn.Module, x: Tensor, output: Tensor) -> float:
    assert output.grad is not None
    return float((output.grad * (layer(x) - output)).square().sum()) / 2
