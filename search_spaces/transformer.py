"""What the elastic transformer families share: their genes, and subnets made of blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from search_spaces.blocks import Block, Cost, Workload
from search_spaces.errors import UserError
from search_spaces.space import Architecture, Choice, SearchSpace

REMEMBERED_SUBNETS = 1024


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer that stays."""

    index: int
    """Which layer of the supernet it is."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads."""
    ffn: int
    """Hidden width of the feed-forward network."""


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """An architecture spelled out."""

    embed: int
    """Embedding width of the whole network."""
    layers: tuple[Layer, ...]
    """The layers that stay, first to last."""


class TransformerSpace(SearchSpace):
    """Elastic embedding width, depth, attention heads per layer and FFN width per layer.

    All widths are nested prefixes (MatFormer, arXiv:2310.07707). Genes: `embed`, `depth`, and
    `heads.i` and `ffn.i` of every layer `i`; those of a dropped layer do not count.

    Args:
        embed: Embedding widths.
        depth: Numbers of layers that stay; the largest is the supernet's.
        heads: Query heads of a layer.
        ffn: FFN widths of a layer.
        head_dim: Features of one head.
        group: Query heads that share one key/value head.
        drop_order: All layer indices, the first to be dropped first; by default every other
            layer, the deepest first (LayerDrop, arXiv:1909.11556).

    Raises:
        UserError: A choice is not a positive integer, they are not ascending, heads do not divide
            into groups, or `drop_order` is no permutation of the layers.
    """

    family: str

    def __init__(
        self,
        *,
        embed: Sequence[int],
        depth: Sequence[int],
        heads: Sequence[int],
        ffn: Sequence[int],
        head_dim: int,
        group: int = 1,
        drop_order: Sequence[int] | None = None,
    ) -> None:
        for name, values in (("embed", embed), ("depth", depth), ("heads", heads), ("ffn", ffn)):
            _check_choices(name, values)
        for name, value in (("head_dim", head_dim), ("group", group)):
            if value < 1:
                raise UserError(f"space.{name} {value} is below 1; give a positive integer")
        for count in heads:
            if count % group:
                raise UserError(
                    f"space.heads {count} does not divide into groups of {group}; "
                    "edit space.heads or space.group"
                )
        layers = max(depth)
        default = [*range(1, layers, 2)][::-1] + [*range(0, layers, 2)][::-1]
        self.drop_order = tuple(default if drop_order is None else drop_order)
        if sorted(self.drop_order) != list(range(layers)):
            raise UserError(
                f"space.drop_order {list(self.drop_order)} must name each of the {layers} layers "
                f"0 to {layers - 1} once"
            )
        self.head_dim = head_dim
        self.group = group
        self.max_depth = layers
        choices: dict[str, Sequence[Choice]] = {"embed": embed, "depth": depth}
        active: dict[str, dict[str, Sequence[Choice]]] = {}
        for index in range(layers):
            # Layer i stays with depth d when fewer than `layers - d` layers are dropped before it.
            rank = self.drop_order.index(index)
            kept = [d for d in depth if rank >= layers - d]
            for name, values in (("heads", heads), ("ffn", ffn)):
                choices[f"{name}.{index}"] = values
                active[f"{name}.{index}"] = {"depth": kept}
        super().__init__(choices, active)

    def subnet(self, arch: Architecture) -> Subnet:
        """The widths of an architecture of this space; remembered, as training asks each step."""
        known = self._subnets.get(arch)
        if known is None:
            if len(self._subnets) >= REMEMBERED_SUBNETS:
                self._subnets.clear()
            known = self._subnets[arch] = self._resolve(arch)
        return known

    @cached_property
    def _subnets(self) -> dict[Architecture, Subnet]:
        return {}

    def _resolve(self, arch: Architecture) -> Subnet:
        dropped = set(self.drop_order[: self.max_depth - _integer(arch["depth"])])
        layers = []
        for index in range(self.max_depth):
            if index not in dropped:
                heads = _integer(arch[f"heads.{index}"])
                layers.append(
                    Layer(
                        index=index,
                        heads=heads,
                        kv_heads=heads // self.group,
                        ffn=_integer(arch[f"ffn.{index}"]),
                    )
                )
        return Subnet(embed=_integer(arch["embed"]), layers=tuple(layers))

    def blocks(self, arch: Architecture) -> tuple[Block, ...]:
        """The blocks whose costs add up to the subnet's: the fixed part, then two per layer."""
        subnet = self.subnet(arch)
        blocks = [_fixed(subnet.embed)]
        for layer in subnet.layers:
            blocks.append(_attention(subnet.embed, layer.heads, self.group))
            blocks.append(_ffn(subnet.embed, layer.ffn))
        return tuple(blocks)

    def all_blocks(self) -> tuple[Block, ...]:
        """Every distinct block of the space."""
        found: dict[Block, None] = {}
        for embed in self.choices["embed"]:
            found[_fixed(_integer(embed))] = None
            for index in range(self.max_depth):
                for heads in self.choices[f"heads.{index}"]:
                    found[_attention(_integer(embed), _integer(heads), self.group)] = None
                for ffn in self.choices[f"ffn.{index}"]:
                    found[_ffn(_integer(embed), _integer(ffn))] = None
        return tuple(found)

    def block_cost(self, block: Block, workload: Workload) -> Cost:
        """Analytic cost of one block; see the family."""
        raise NotImplementedError

    def check_workload(self, workload: Workload) -> None:
        """Raise UserError if the family cannot run `workload`."""
        raise NotImplementedError

    def cost(self, arch: Architecture, workload: Workload | None = None) -> Cost:
        """Analytic cost of a subnet: the sum over its blocks.

        Args:
            arch: An architecture of this space.
            workload: What one call is given; by default `default_workload`.
        """
        workload = self.default_workload if workload is None else workload
        costs = [self._cached_cost(block, workload) for block in self.blocks(arch)]
        return Cost(
            macs=sum(cost.macs for cost in costs),
            parameters=sum(cost.parameters for cost in costs),
            size_bytes=sum(cost.size_bytes for cost in costs),
            kv_cache_bytes=sum(cost.kv_cache_bytes for cost in costs),
        )

    @property
    def default_workload(self) -> Workload:
        """One image, or one sequence that fills the context."""
        raise NotImplementedError

    def _cached_cost(self, block: Block, workload: Workload) -> Cost:
        key = (block, workload)
        if key not in self._costs:
            self._costs[key] = self.block_cost(block, workload)
        return self._costs[key]

    @cached_property
    def _costs(self) -> dict[tuple[Block, Workload], Cost]:
        return {}

    def uniform(self, count: int = 5) -> list[Architecture]:
        """`count` architectures, smallest to largest, every gene at the same part of its range."""
        found: dict[Architecture, None] = {}
        for fraction in np.linspace(0.0, 1.0, count):
            genes = np.floor(fraction * (self.cardinalities - 1) + 0.5).astype(np.int64)
            found[self.decode(genes)] = None
        return list(found)

    def to_json(self) -> dict[str, object]:
        """Everything that `space_from_json` needs."""
        return {
            "family": self.family,
            "head_dim": self.head_dim,
            "embed": list(self.choices["embed"]),
            "depth": list(self.choices["depth"]),
            "heads": list(self.choices["heads.0"]),
            "ffn": list(self.choices["ffn.0"]),
            "drop_order": list(self.drop_order),
        }

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the space."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


@cache
def _fixed(embed: int) -> Block:
    return Block(kind="fixed", widths=(("embed", embed),))


@cache
def _attention(embed: int, heads: int, group: int) -> Block:
    widths = (("embed", embed), ("heads", heads), ("kv_heads", heads // group))
    return Block(kind="attention", widths=widths)


@cache
def _ffn(embed: int, ffn: int) -> Block:
    return Block(kind="ffn", widths=(("embed", embed), ("ffn", ffn)))


def _check_choices(name: str, choices: Sequence[int]) -> None:
    if not choices:
        raise UserError(f"space.{name} is empty; give at least one choice")
    for value in choices:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"space.{name} {value!r} is not a positive integer")
    if list(choices) != sorted(set(choices)):
        raise UserError(f"space.{name} {list(choices)} must ascend without repeats")
