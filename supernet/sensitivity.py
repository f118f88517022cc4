"""What each linear layer loses under each scheme, without evaluating a single policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.schemes import FULL, SCHEMES
from search_spaces.space import Architecture
from supernet.block_paths import by_path
from supernet.quantization import QuantizedLinear
from supernet.sharing import WeightSharing
from supernet.stored import StoredLayer

WORST = 1e30
"""In place of a loss that is no finite number: neither JSON nor an integer program has these."""

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
        watched = [
            child.register_forward_hook(partial(note, name))
            for name, child in plain.named_modules()
            if isinstance(child, nn.Linear | nn.Embedding | nn.Conv2d)
        ]
        results = plain(inputs)
        for handle in watched:
            handle.remove()
        logits = results if isinstance(results, Tensor) else results[0]
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
    static = any(SCHEMES[name].activations == "static" for name in space.precision)
    ranges = model.ranges(arch) if static else {}
    groups = any(SCHEMES[name].group is not None for name in space.precision)
    moments = model.moments(arch) if groups else {}

    def quantized(name: str, scheme: str) -> nn.Module:
        linear = plain.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            return StoredLayer(linear, SCHEMES[scheme])
        return QuantizedLinear(linear, SCHEMES[scheme], ranges.get(name), moments.get(name))

    found: dict[str, dict[str, float]] = {}
    for path, genes in by_path(space.policy_genes(arch)).items():
        linears: Mapping[str, tuple[str, ...]] = plain.get_submodule(path).LINEARS
        for part, name in genes.items():
            found[name] = {
                str(scheme): sum(
                    _loss(quantized(layer, str(scheme)), *seen[layer]) if scheme != FULL else 0.0
                    for layer in (f"{path}.{one}" for one in linears[part])
                )
                / targets.numel()
                for scheme in space.choices[name]
            }
    return found


@torch.no_grad()
def _loss(layer: nn.Module, x: Tensor, output: Tensor) -> float:
    assert output.grad is not None
    loss = float((output.grad * (layer(x) - output)).square().sum()) / 2
    return loss if math.isfinite(loss) else WORST
