"""A subnet as a plain module: with a copy of the supernet's weights, or looking at them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from search_spaces.schemes import FULL, SCHEMES
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace
from supernet.block_paths import by_path
from supernet.calibration import observed_moments, observed_ranges
from supernet.integers import Rounding
from supernet.quantization import Moments, Ranges, quantize_block, within

Plain = TypeVar("Plain", bound=nn.Module)

REMEMBERED = 16
"""Subnets whose plain modules are kept; they hold no weights of their own."""
REMEMBERED_RANGES = 4096
"""Subnets whose activation ranges are kept, a few hundred bytes for each layer."""
WORTH_BUILDING = 8
"""Calls of a subnet from which on its plain module is built: that takes as long as several."""


class WeightSharing(nn.Module, Generic[Plain]):
    """What all supernets share: their subnets as plain modules.

    Every elastic dimension is a prefix, and a plain module names its parameters as the supernet
    does, so that the shape of a plain parameter says which part of the supernet's it is.

    A subnet with a precision policy runs as its plain module always, with simulated quantization
    (`supernet.quantization`), but in training: then its elastic layers round straight through.
    """

    space: TransformerSpace

    def __init__(self) -> None:
        super().__init__()
        self._remembered: _Remembered[Plain] = _Remembered()
        self._calibration: tuple[Tensor, ...] = ()
        self._ranges: OrderedDict[Architecture, Ranges] = OrderedDict()
        self._moments: OrderedDict[Architecture, Moments] = OrderedDict()
        self._rounding: Rounding = "compensated"

    def build_plain(self, arch: Architecture) -> tuple[Plain, Sequence[int]]:
        """The plain module of `arch`, not filled, and which layers of the supernet it has."""
        raise NotImplementedError

    def extract(self, arch: Architecture) -> Plain:
        """The subnet `arch` as a plain module in evaluation mode, with its weights copied."""
        plain, _ = self._fill(arch, share=False)
        self._quantize(plain, arch)
        return plain

    def shared(self, arch: Architecture) -> Plain:
        """The subnet `arch` as a plain module in evaluation mode, on the supernet's own weights.

        Its parameters are views, without gradients. The module is kept for the next call, as long
        as the supernet's weights stay where they are in memory, whatever is written there.
        """
        plain = self._remembered.get(arch)
        if plain is None:
            plain, sources = self._fill(arch, share=True)
            self._quantize(plain, arch)
            self._remembered.add(arch, plain, sources)
        return plain

    def plain(self, arch: Architecture, dropout: float) -> Plain | None:
        """What a forward pass may run instead of elastic layers, if that is worth while.

        Nothing must be trained, dropped or traced, and the subnet must have run a few times. With
        a precision policy there is no other way, but in training.

        Raises:
            ValueError: There is a policy, and dropout outside of training.
        """
        if torch.is_grad_enabled() and self.training:
            return None
        if self.space.precision and self.space.schemes(arch):
            if dropout:
                raise ValueError("a subnet with a precision policy has dropout in training only")
            return self.shared(arch)
        if torch.is_grad_enabled() or dropout or torch.compiler.is_compiling():
            return None
        plain = self._remembered.get(arch)
        if plain is None and self._remembered.is_worth_building(arch):
            plain = self.shared(arch)
        return plain

    def calibrate(self, inputs: Sequence[Tensor], rounding: Rounding = "compensated") -> None:
        """Fit quantization to what each subnet sees, in fp32, on these batches.

        Call it again when the weights have changed.

        Args:
            inputs: Batches as `forward` takes them.
            rounding: How weights in groups are rounded.
        """
        self._calibration = tuple(inputs)
        self._rounding = rounding
        self._ranges.clear()
        self._moments.clear()
        self._remembered = _Remembered()

    @property
    def calibration(self) -> tuple[Tensor, ...]:
        """The batches that quantization is fitted to; none uncalibrated."""
        return self._calibration

    def ranges(self, arch: Architecture) -> Ranges:
        """Lowest and highest input of each linear layer of a plain subnet, whatever its policy.

        Raises:
            ValueError: `calibrate` was not called.
        """
        if not self._calibration:
            raise ValueError("no activation ranges are known; call calibrate with a few batches")
        base = self.space.with_scheme(arch, FULL)
        if base not in self._ranges:
            plain = self.shared(base)
            with torch.inference_mode(), observed_ranges(plain) as ranges:
                for batch in self._calibration:
                    plain(batch)
            self._ranges[base] = ranges
            if len(self._ranges) > REMEMBERED_RANGES:
                self._ranges.popitem(last=False)
        return self._ranges[base]

    def moments(self, arch: Architecture) -> Moments:
        """Mean products of the inputs of each linear layer of a plain subnet; none uncalibrated."""
        if not self._calibration or self._rounding == "nearest":
            return {}
        base = self.space.with_scheme(arch, FULL)
        if base not in self._moments:
            plain = self.shared(base)
            with torch.inference_mode(False), torch.no_grad(), observed_moments(plain) as moments:
                for batch in self._calibration:
                    plain(batch)
            self._moments[base] = moments
            if len(self._moments) > REMEMBERED:
                self._moments.popitem(last=False)
        return self._moments[base]

    def _quantize(self, plain: Plain, arch: Architecture) -> None:
        """Give a plain module the schemes of its architecture."""
        schemes = [SCHEMES[name] for name in self.space.schemes(arch)]
        if not schemes:
            return
        static = any(scheme.activations == "static" for scheme in schemes)
        ranges = self.ranges(arch) if static else {}
        groups = any(scheme.group is not None for scheme in schemes)
        moments = self.moments(arch) if groups else {}
        policies = [dict(block.precision) for block in self.space.blocks(arch)]
        for path, policy in by_path(policies).items():
            quantize_block(
                plain.get_submodule(path),
                tuple(policy.items()),
                within(ranges, path),
                within(moments, path),
                self._rounding,
            )

    def _fill(self, arch: Architecture, *, share: bool) -> tuple[Plain, _Sources]:
        """The plain module with copies or views, and where the supernet keeps its parameters."""
        sources = _Sources()
        # Outside of inference mode: what is made there could never be trained.
        with torch.inference_mode(False), torch.no_grad():
            with torch.device("meta"):
                plain, layers = self.build_plain(arch)
            for name, parameter in list(plain.named_parameters()):
                path, leaf = _elastic_path(name, layers)
                owner = self.get_submodule(path)
                source = sources.add(owner._parameters, leaf).detach()
                part = source[tuple(slice(0, size) for size in parameter.shape)]
                if not share:
                    part = part.clone(memory_format=torch.contiguous_format)
                _replace(plain, name, nn.Parameter(part, requires_grad=not share))
            for name, _ in list(plain.named_buffers()):
                path, leaf = _elastic_path(name, layers)
                buffer = sources.add(self.get_submodule(path)._buffers, leaf)
                _replace(plain, name, buffer if share else buffer.clone())
        return plain.eval(), sources


class _Sources:
    """Where a supernet keeps the parameters and buffers that a plain module looks at."""

    def __init__(self) -> None:
        self.owners: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.addresses: list[int] = []

    def add(self, owner: dict[str, Any], name: str) -> Tensor:
        """Note the tensor `name` of a module's parameters or buffers, and give it."""
        tensor: Tensor = owner[name]
        self.owners.append(owner)
        self.names.append(name)
        self.addresses.append(tensor.data_ptr())
        return tensor

    def unmoved(self) -> bool:
        """Whether all are still where they were.

        A view holds the memory that it looks at, so that an equal address means that it is a view
        of the parameter, whatever was loaded, cast or replaced since.
        """
        # In C, since a small subnet takes little longer than a loop over its parameters.
        tensors = map(dict.__getitem__, self.owners, self.names)
        return list(map(Tensor.data_ptr, tensors)) == self.addresses


class _Remembered(Generic[Plain]):
    """The plain modules used last. A copy of a supernet remembers nothing of the other's."""

    def __init__(self) -> None:
        self._modules: OrderedDict[Architecture, tuple[Plain, _Sources]] = OrderedDict()
        self._calls: dict[Architecture, int] = {}

    def get(self, arch: Architecture) -> Plain | None:
        """The module of `arch`, if it still looks at the supernet's weights."""
        known = self._modules.get(arch)
        if known is None:
            return None
        if not known[1].unmoved():
            self._modules.clear()  # or they would hold the old weights in memory
            return None
        self._modules.move_to_end(arch)
        return known[0]

    def add(self, arch: Architecture, plain: Plain, sources: _Sources) -> None:
        """Remember a module, and forget the one that was not used for longest."""
        self._modules[arch] = plain, sources
        self._modules.move_to_end(arch)
        if len(self._modules) > REMEMBERED:
            self._modules.popitem(last=False)

    def is_worth_building(self, arch: Architecture) -> bool:
        """Count a call of a subnet that is not there; whether there were enough since it was."""
        if len(self._calls) > 100 * REMEMBERED:
            self._calls.clear()
        self._calls[arch] = self._calls.get(arch, 0) + 1
        if self._calls[arch] < WORTH_BUILDING:
            return False
        del self._calls[arch]
        return True

    def __deepcopy__(self, memo: dict[int, object]) -> _Remembered[Plain]:
        return _Remembered()

    def __reduce__(self) -> tuple[type[_Remembered[Plain]], tuple[()]]:
        return _Remembered, ()


def _elastic_path(name: str, layers: Sequence[int]) -> tuple[str, str]:
    """The supernet's module and the name in it for a plain one's, such as `ffn.0.up.weight`."""
    owner, *rest = name.split(".")
    if rest and rest[0].isdigit():
        rest[0] = str(layers[int(rest[0])])
    *path, leaf = [owner, *rest]
    return ".".join(path), leaf


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, tensor)
