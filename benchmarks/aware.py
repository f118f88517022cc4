"""Ways to train with policies, one at a time: the one in use, and those that are not.

Each is a `Trainer` from trained weights on; what is not in use is put around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from search_spaces.schemes import FULL, SCHEMES
from supernet.distillation import kl_divergence
from supernet.elastic import ElasticLinear
from supernet.families import Supernet
from supernet.gradients import prefix
from supernet.integers import IntegerWeight, integer_weight
from supernet.quantization import QuantizedLinear
from supernet.training import Trainer

Addition = Callable[[Trainer, Supernet], AbstractContextManager[None]]
"""What is done around a training."""
GROUPS = SCHEMES["w4"]


def statistical_weight(weight: Tensor) -> IntegerWeight:
    """4-bit weights with 8 steps to twice the mean magnitude of a group (OFQ, arXiv:2302.02210)."""
    missing = -weight.shape[1] % 32
    groups = F.pad(weight, (0, missing)).unflatten(1, (-1, 32))  # (O, G, 32)
    scale = groups.abs().mean(dim=2) * 2 / 8
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    values = (torch.round(groups / scale[..., None]) + 8).clamp(0, 15)
    return IntegerWeight(values=values.to(torch.uint8), scale=scale)


class StatisticalLinear(QuantizedLinear):
    """4-bit weights with statistical scales, after training."""

    def __init__(self, linear: nn.Linear, _: Tensor) -> None:
        super().__init__(linear, GROUPS)

    def integers(self) -> IntegerWeight:
        """See `QuantizedLinear.integers`."""
        return statistical_weight(self.weight.detach())


class ElasticStatisticalLinear(ElasticLinear):
    """The same in training."""

    def forward(self, x: Tensor, out_width: int | None = None, scheme: str = FULL) -> Tensor:
        """See `ElasticLinear`."""
        if scheme != "w4":
            return super().forward(x, out_width, scheme)
        width = self.out_features if out_width is None else out_width
        weight = prefix(self.weight, width, x.shape[-1])
        found = statistical_weight(weight.detach()).floats(x.shape[-1])
        bias = None if self.bias is None else prefix(self.bias, width)
        return F.linear(x, weight + (found - weight).detach(), bias)


@contextmanager
def statistical_scales(_: Trainer, model: Supernet) -> Iterator[None]:
    """Train with `statistical_weight`."""
    layers = quantized_layers(model)
    for layer in layers:
        layer.__class__ = ElasticStatisticalLinear
    yield
    for layer in layers:
        layer.__class__ = ElasticLinear


def quantized_layers(model: Supernet) -> list[ElasticLinear]:
    """The layers that have schemes."""
    blocks = [one for name in ("attention", "ffn") for one in model.get_submodule(name).modules()]
    return [one for one in blocks if isinstance(one, ElasticLinear)]


class Freezing:
    """Weights whose 4-bit integers go to and fro stay at their mean (arXiv:2203.08215, OFQ).

    Args:
        model: The supernet; its whole layers count, not the subnets' prefixes.
    """

    FORGETTING = 0.02
    """Weight of the last step in the running means."""
    LIMIT = 0.04
    """Turns a step from which on a weight is frozen."""

    def __init__(self, model: Supernet) -> None:
        self.weights = [layer.weight for layer in quantized_layers(model)]
        self.last = [self._rounded(weight)[0] for weight in self.weights]
        self.means = [last.clone() for last in self.last]
        self.direction = [torch.zeros_like(last) for last in self.last]
        self.turns = [torch.zeros_like(last) for last in self.last]
        self.frozen = [torch.zeros_like(last, dtype=torch.bool) for last in self.last]

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What the integers stand for, and the steps between them, shape `(O, I)` each."""
        found = integer_weight(weight.detach(), GROUPS)
        steps = found.scale.abs().repeat_interleave(32, dim=1)[:, : weight.shape[1]]
        return found.floats(weight.shape[1]), steps

    @torch.no_grad()
    def __call__(self, *_: Any) -> None:
        """After a step of the optimizer."""
        for index, weight in enumerate(self.weights):
            frozen = self.frozen[index]
            weight.copy_(torch.where(frozen, self.means[index], weight))
            rounded, steps = self._rounded(weight)
            change = rounded - self.last[index]
            moved = change.abs() > steps / 2  # or the scale alone has changed
            turned = moved & (change * self.direction[index] < 0)
            self.direction[index] = torch.where(moved, change.sign(), self.direction[index])
            self.turns[index].lerp_(turned.float(), self.FORGETTING)
            mean = self.means[index].lerp(rounded, self.FORGETTING)
            now = ~frozen & (self.turns[index] > self.LIMIT)
            mean = torch.where(now, (mean / steps).round() * steps, mean)
            self.means[index] = torch.where(frozen, self.means[index], mean)
            self.frozen[index] = frozen | now
            self.last[index] = rounded

    @property
    def share(self) -> float:
        """Of all weights, those that are frozen."""
        return sum(float(one.sum()) for one in self.frozen) / sum(one.numel() for one in self.last)


@contextmanager
def frozen_weights(trainer: Trainer, model: Supernet) -> Iterator[None]:
    """Train with `Freezing`."""
    freezing = Freezing(model)
    handle = trainer.optimizer.register_step_post_hook(freezing)
    yield
    handle.remove()
    print(f"frozen: {100 * freezing.share:.2f} % of the weights")


@contextmanager
def labels(trainer: Trainer, _: Supernet) -> Iterator[None]:
    """Train all subnets on the labels, and none on the largest."""
    trainer.policy_distillation = None
    yield


class AttentionLoss(TorchFunctionMode):
    """What subnets lose in attention against the largest, beside the logits (arXiv:2211.11014).

    Heads and features that a subnet does not have do not count.

    Args:
        model: The supernet.
        maps: Compare attention maps; otherwise the outputs of attention.
    """

    def __init__(self, model: Supernet, maps: bool) -> None:
        super().__init__()
        self.maps = maps
        self.layer, self.seen, self.teacher = 0, dict[int, Tensor](), dict[int, Tensor]()
        self.handles = [model.register_forward_pre_hook(self._begin(model.space.largest))]
        for index, block in enumerate(model.get_submodule("attention").children()):
            self.handles.append(block.register_forward_pre_hook(self._enter(index)))
            if not maps:
                out = block.get_submodule("out")
                self.handles.append(out.register_forward_hook(self._leave(index)))

    def _begin(self, largest: object) -> Callable[..., None]:
        def begin(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.seen = {}
            if given[1] == largest:
                self.teacher = self.seen

        return begin

    def _enter(self, index: int) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.layer = index

        return enter

    def _leave(self, index: int) -> Callable[..., None]:
        def leave(_: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
            self.seen[index] = output

        return leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.maps:
            query, key, _ = args
            scores = query @ key.mT / query.shape[-1] ** 0.5
            mask = kwargs.get("attn_mask")
            self.seen[self.layer] = scores if mask is None else scores + mask.clamp(min=-1e4)
        return func(*args, **kwargs)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of a student: of its logits and, on average over layers, of its attention."""
        loss = kl_divergence(student, teacher)
        for index, found in self.seen.items():
            wanted = self.teacher[index].detach()
            if self.maps:
                part = kl_divergence(found, wanted[:, : found.shape[1]])
            else:
                wanted = wanted[..., : found.shape[-1]].float()
                part = F.mse_loss(found.float(), wanted) / wanted.var()
            loss = loss + part / len(self.seen)
        return loss


def _attention(maps: bool) -> Addition:
    @contextmanager
    def around(trainer: Trainer, model: Supernet) -> Iterator[None]:
        loss = AttentionLoss(model, maps)
        trainer.policy_distillation = loss
        with loss:
            yield
        for handle in loss.handles:
            handle.remove()

    return around


TRAININGS: Final[Mapping[str, tuple[bool, Addition]]] = {
    "fp32": (False, lambda *_: nullcontext()),
    "policies": (True, lambda *_: nullcontext()),
    "policies, from labels": (True, labels),
    "policies, statistical scales": (True, statistical_scales),
    "policies, frozen weights": (True, frozen_weights),
    "policies, attention outputs": (True, _attention(maps=False)),
    "policies, attention maps": (True, _attention(maps=True)),
}
"""Whether subnets have policies in it, and what is done around it."""
