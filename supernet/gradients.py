"""Where the gradients of a step add up: one buffer, to which prefixes write directly.

The backward pass of an ordinary slice makes a gradient of the size of the whole parameter, fills it
with zeros around the part that counts, and adds all of it up. Here a prefix is a leaf of its own,
which shares memory with the parameter, and whose `.grad` is the same prefix of the parameter's
gradient. Autograd adds to that in place, so that a narrow subnet pays for its own weights only. The
sums are the same, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn


def prefix(parameter: Tensor, *sizes: int) -> Tensor:
    """The leading part of a parameter, for use in a forward pass.

    Args:
        parameter: Of any shape.
        sizes: What to keep of the first dimensions; the others are kept whole.

    Returns:
        A view, or `parameter` itself where that is all of it. Gradients reach the parameter through
        autograd or, within `SharedGradients.collect`, directly.
    """
    sizes = (*sizes, *parameter.shape[len(sizes) :])
    if parameter.shape == sizes:
        return parameter
    # Asked first: a compiler cannot look into a context variable, and would break its graph here.
    collecting = None if torch.compiler.is_compiling() else _collecting.get()
    if collecting is None:
        for dimension, size in enumerate(sizes):
            if size != parameter.shape[dimension]:
                parameter = parameter.narrow(dimension, 0, size)
        return parameter
    return collecting.leaf(parameter, sizes)


class SharedGradients:
    """The gradients of all parameters of a supernet, in one buffer.

    Args:
        parameters: Of one dtype and one device. They must keep their memory while this is in use:
            values may be changed in place, as optimizers do, but `.data` may not be replaced.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.buffer = torch.zeros(
            sum(p.numel() for p in self.parameters),
            dtype=self.parameters[0].dtype,
            device=self.parameters[0].device,
        )
        parts = torch.split(self.buffer, [p.numel() for p in self.parameters])
        self._gradients = [
            part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)
        ]
        self._of = {id(p): g for p, g in zip(self.parameters, self._gradients, strict=True)}
        self._leaves: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        _silence_layout_warning()

    def clear(self) -> None:
        """Set all gradients to zero, and see that they are where the parameters' `.grad` are."""
        self.buffer.zero_()
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            if parameter.grad is not gradient:  # someone else has cleared or replaced it
                parameter.grad = gradient

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Let `prefix` give leaves that write here, for losses that go through `backward` only."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def leaf(self, parameter: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """A leading part of `parameter` that shares its memory and its gradient's."""
        key = (id(parameter), sizes)
        leaf = self._leaves.get(key)
        if leaf is None:
            gradient = self._of[id(parameter)]
            leaf = parameter.detach().as_strided(sizes, parameter.stride()).requires_grad_()
            leaf.grad = gradient.as_strided(sizes, gradient.stride(), gradient.storage_offset())
            self._leaves[key] = leaf
        return leaf

    def norm(self) -> Tensor:
        """Euclidean norm of all gradients together, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.buffer)
        return norm


_collecting: ContextVar[SharedGradients | None] = ContextVar("collecting", default=None)


def _silence_layout_warning() -> None:
    """Let PyTorch say, unheard, what it says once: a gradient with gaps between its rows is slower.

    It is meant for gradients that got such strides by mistake; here they save a copy.
    """
    parameter = torch.zeros(2, 2)
    leaf = parameter[:, :1].detach().requires_grad_()
    leaf.grad = torch.zeros(2, 2)[:, :1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaf.sum().backward()  # type: ignore[no-untyped-call]
