"""Remedies for few bits that need no training, one at a time: those in use, and those that are not.

A remedy takes a linear layer of a plain subnet and its calibration inputs, shape `(rows, I)`, and
gives the layer that runs instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from search_spaces import Architecture
from search_spaces.schemes import FULL, SCHEMES
from supernet.calibration import counted, least_error
from supernet.families import Supernet
from supernet.integers import IntegerWeight, integer_weight
from supernet.quantization import QuantizedLinear, within

Remedy = Callable[[nn.Linear, Tensor], nn.Module]
Probabilities = Callable[[Tensor], Tensor]
"""Attention probabilities to rounded ones."""

STATIC = SCHEMES["w8a8"]


def ends(x: Tensor) -> tuple[float, float]:
    """The lowest and the highest input: the range without a remedy."""
    return x.min().item(), x.max().item()


def lowest_to_highest(linear: nn.Linear, x: Tensor) -> nn.Module:
    """No remedy."""
    return QuantizedLinear(linear, STATIC, ends(x))


def clipped_inputs(linear: nn.Linear, x: Tensor) -> nn.Module:
    """The range of least squared error: what the product does."""
    return QuantizedLinear(linear, STATIC, least_error(counted(x), ends(x)))


def percentile(linear: nn.Linear, x: Tensor, share: float) -> nn.Module:
    """The range without a share of the inputs at each end."""
    order = x.flatten().sort().values
    last = len(order) - 1
    bounds = order[round((1 - share) * last)].item(), order[round(share * last)].item()
    return QuantizedLinear(linear, STATIC, bounds)


class ClippedWeights(QuantizedLinear):
    """Of 26 scales for each output, the one of least error, each input counting by its square."""

    def __init__(self, linear: nn.Linear, x: Tensor) -> None:
        super().__init__(linear, STATIC, ends(x))
        self.square = x.square().mean(dim=0)

    def integers(self) -> IntegerWeight:
        """See `QuantizedLinear.integers`."""
        weight = self.weight.detach()  # (O, I)
        scales = torch.linspace(0.5, 1, 26)[:, None, None] * weight.abs().amax(1)[:, None] / 127
        values = torch.round(weight / scales).clamp(-127, 127)  # (26, O, I)
        best = ((values * scales - weight).square() * self.square).sum(2).argmin(0)  # (O,)
        places = torch.arange(len(weight))
        return IntegerWeight(
            values=values[best, places].to(torch.int8), scale=scales[best, places, 0]
        )


class ClippedGroups(QuantizedLinear):
    """4-bit weights: of 13 scales for each group, the one of least error, as AWQ clips.

    As `ClippedWeights` has it (arXiv:2306.00978).
    """

    SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, -1.0, -0.95, -0.9, -0.85, -0.8, -1.1)

    def __init__(self, linear: nn.Linear, x: Tensor) -> None:
        super().__init__(linear, SCHEMES["w4"])
        self.square = F.pad(x.square().mean(dim=0), (0, -x.shape[1] % 32)).view(-1, 32)

    def integers(self) -> IntegerWeight:
        """See `QuantizedLinear.integers`."""
        first = integer_weight(self.weight.detach(), self.scheme).scale  # (O, G)
        missing = -self.in_features % 32
        groups = F.pad(self.weight.detach(), (0, missing)).unflatten(1, (-1, 32))  # (O, G, 32)
        scales = torch.tensor(self.SCALES)[:, None, None, None] * first[..., None]
        values = torch.round(groups / scales).clamp(-8, 7)  # (13, O, G, 32)
        errors = ((values * scales - groups).square() * self.square).sum(dim=3)  # (13, O, G)
        best = errors.argmin(dim=0, keepdim=True)  # (1, O, G)
        chosen = values.gather(0, best[..., None].expand(-1, -1, -1, 32))[0] + 8
        return IntegerWeight(values=chosen.to(torch.uint8), scale=scales[..., 0].gather(0, best)[0])


class OutlierColumns(nn.Module):
    """Inputs that reach far stay in fp32, as a product of their own (LLM.int8, arXiv:2208.07339).

    Args:
        linear: The layer in fp32.
        x: Its inputs.
        share: Of the columns, those with the largest input; None is LLM.int8's: all above 6.
        inner: The remedy for the others.
    """

    def __init__(
        self, linear: nn.Linear, x: Tensor, share: float | None, inner: Remedy = lowest_to_highest
    ) -> None:
        super().__init__()
        largest = x.abs().amax(dim=0)
        limit = 6.0 if share is None else torch.quantile(largest, 1 - share).item()
        self.columns = (largest > limit).nonzero()[:, 0]
        self.kept = (largest <= limit).to(x.dtype)
        self.inner = inner(linear, x * self.kept)
        self.weight = linear.weight[:, self.columns]

    def forward(self, x: Tensor) -> Tensor:
        """`(*batch, I)` to `(*batch, O)`."""
        out: Tensor = self.inner(x * self.kept) + F.linear(x[..., self.columns], self.weight)
        return out


@torch.no_grad()
def reparametrize(block: nn.Module, seen: Mapping[str, Tensor]) -> None:
    """Give the features behind a norm one range, in place (RepQ-ViT, arXiv:2212.08254).

    The norm divides each feature by its range, and shifts it if it has a bias; the linear layers
    that read it (query, key and value; gate and values) multiply and shift back.
    """
    readers: tuple[str, ...] = next(iter(block.LINEARS.values()))  # type: ignore[operator, arg-type]
    x, norm = seen[readers[0]], block.norm
    low, high = x.amin(dim=0), x.amax(dim=0)
    width = ((high - low) / (high - low).mean()).clamp(min=1e-6)
    middle = (low + high) / 2 / width
    shift = middle - middle.mean()
    norm.weight = nn.Parameter(norm.weight / width)  # type: ignore[union-attr, operator, arg-type]
    shifts = getattr(norm, "bias", None) is not None
    if shifts:
        norm.bias = nn.Parameter(norm.bias / width - shift)  # type: ignore[union-attr, operator, arg-type]
    for name in readers:
        linear: Any = block.get_submodule(name)
        linear.weight = nn.Parameter(linear.weight * width)
        if shifts:
            linear.bias = nn.Parameter(linear.bias + linear.weight @ shift)


class RoundedProbabilities(TorchFunctionMode):
    """Rounds what softmax gives inside attention, wherever it is called."""

    def __init__(self, rounded: Probabilities) -> None:
        super().__init__()
        self.rounded = rounded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if kwargs.get("attn_mask") is not None:
            scores = scores + kwargs["attn_mask"]
        return self.rounded(scores.softmax(dim=-1)) @ value


def even(x: Tensor, bits: int) -> Tensor:
    """Probabilities at even steps between 0 and 1."""
    steps = 2**bits - 1
    return torch.round(x * steps) / steps


def log_sqrt2(x: Tensor, bits: int) -> Tensor:
    """Powers of the square root of 1/2; 0 stays (RepQ-ViT's softmax quantizer)."""
    power = torch.round(-2 * torch.log2(x.clamp(min=1e-30))).clamp(max=2**bits - 1)
    return torch.where(x > 0, 2 ** (-power / 2), 0.0)


STATIC_REMEDIES: Final[Mapping[str, tuple[Remedy, bool]]] = {
    "none": (lowest_to_highest, False),
    "inputs clipped: least error (in use)": (clipped_inputs, False),
    "inputs clipped: 0.01 % at each end": (partial(percentile, share=0.9999), False),
    "inputs clipped: 0.1 % at each end": (partial(percentile, share=0.999), False),
    "weights clipped": (ClippedWeights, False),
    "outlier columns above 6": (partial(OutlierColumns, share=None), False),
    "3 % outlier columns": (partial(OutlierColumns, share=0.03), False),
    "3 % outlier columns, others clipped": (
        partial(OutlierColumns, share=0.03, inner=clipped_inputs),
        False,
    ),
    "norms reparametrized": (lowest_to_highest, True),
    "norms reparametrized, inputs clipped": (clipped_inputs, True),
}
"""For `w8a8`: the remedy, and whether norms are reparametrized before."""

SOFTMAXES: Final[Mapping[str, Probabilities]] = {
    "softmax in 8 bits, even": partial(even, bits=8),
    "softmax in 8 bits, log sqrt 2": partial(log_sqrt2, bits=8),
    "softmax in 4 bits, even": partial(even, bits=4),
    "softmax in 4 bits, log sqrt 2": partial(log_sqrt2, bits=4),
}
"""For attention's own products, all else in fp32."""


def remedied(
    model: Supernet,
    arch: Architecture,
    batches: Sequence[Tensor],
    remedy: Remedy,
    reparametrized: bool = False,
) -> nn.Module:
    """A subnet, extracted, whose layers of `search_spaces.schemes.PARTS` run with a remedy."""
    plain = model.extract(model.space.with_scheme(arch, FULL))
    blocks = {
        f"{kind}.{place}": plain.get_submodule(f"{kind}.{place}")
        for kind in ("attention", "ffn")
        for place in range(len(model.space.subnet(arch).layers))
    }
    if reparametrized:
        seen = _inputs(plain, batches)
        for path, block in blocks.items():
            reparametrize(block, within(seen, path))
    seen = _inputs(plain, batches)
    for path, block in blocks.items():
        for names in block.LINEARS.values():  # type: ignore[operator, union-attr]
            for name in names:
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(block, name, remedy(linear, seen[f"{path}.{name}"]))
    return plain


@torch.no_grad()
def _inputs(plain: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the linear layers see, shape `(rows, I)`, by their names."""
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.setdefault(name, []).append(given[0].flatten(0, -2))

    handles = [
        one.register_forward_pre_hook(partial(note, name))
        for name, one in plain.named_modules()
        if isinstance(one, nn.Linear)
    ]
    for batch in batches:
        plain(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(some) for name, some in seen.items()}
