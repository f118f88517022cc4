"""What the elastic transformer families share: their genes, and subnets made of blocks."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product, zip_longest

import numpy as np
from numpy.typing import ArrayLike

from search_spaces.blocks import (
    PRECISION,
    Block,
    Cost,
    Workload,
    attention_block,
    ffn_block,
    fixed_block,
)
from search_spaces.errors import UserError
from search_spaces.policy_genes import at_least, checked_ends, checked_schemes, gene
from search_spaces.schemes import FULL, PARTS, PARTS_OF, SCHEMES, STORED, Policy
from search_spaces.space import Architecture, Choice, SearchSpace

REMEMBERED_SUBNETS = 1024
BYTES_PER_PARAMETER = 4
VARYING = ("embed", "depth", "heads", "ffn", "drop_order", "precision", "precision_ends")
"""Keys of a space that say what may be chosen, not what a block of given widths costs."""
NUMERIC = ("norm_epsilon", "rotary_base")
"""Keys that change what a block gives, and not what it costs."""


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
    precision: Policy = ()
    """Linear layers that are not in fp32."""


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """An architecture spelled out."""

    embed: int
    """Embedding width of the whole network."""
    layers: tuple[Layer, ...]
    """The layers that stay, first to last."""
    ends: Policy = ()
    """Stem and head, where they are not in fp32."""


class TransformerSpace(SearchSpace):
    """Elastic embedding width, depth, attention heads per layer and FFN width per layer.

    All widths are nested prefixes (MatFormer, arXiv:2310.07707). Genes: `embed`, `depth`, and
    `heads.i` and `ffn.i` of every layer `i`; those of a dropped layer do not count. With more than
    one scheme in `precision` also `precision.PART.i` for each of `search_spaces.schemes.PARTS`, and
    `precision.stem` and `precision.head` where `precision_ends` names them.

    Args:
        embed: Embedding widths.
        depth: Numbers of layers that stay; the largest is the supernet's.
        heads: Query heads of a layer.
        ffn: FFN widths of a layer.
        head_dim: Features of one head.
        group: Query heads that share one key/value head.
        drop_order: All layer indices, the first to be dropped first; by default every other
            layer, the deepest first (LayerDrop, arXiv:1909.11556).
        precision: Names of `search_spaces.schemes.SCHEMES` that a linear layer may have, fp32
            among them; in any order. Without any, all is fp32.
        precision_ends: Which of stem and head have a scheme too. What is no product of matrices
            has those that only take fewer bits in the file.
        norm_epsilon: What is added to the variance, or mean square, in normalisations; None is the
            family's own, `default_norm_epsilon`.

    Raises:
        UserError: A choice is not a positive integer, they are not ascending, heads do not divide
            into groups, `drop_order` is no permutation of the layers, a scheme is unknown, or
            `norm_epsilon` is not above 0.
    """

    family: str
    default_norm_epsilon: float
    head_schemes: tuple[str, ...] = STORED
    """Schemes that the head may have."""

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
        precision: Sequence[str] = (),
        precision_ends: Sequence[str] = (),
        norm_epsilon: float | None = None,
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
        self.norm_epsilon = self.default_norm_epsilon if norm_epsilon is None else norm_epsilon
        check_positive("norm_epsilon", self.norm_epsilon)
        self.head_dim = head_dim
        self.group = group
        self.max_depth = layers
        self.precision = checked_schemes(precision)
        self.ends = checked_ends(precision_ends) if self.precision else ()
        self.left_out: Mapping[Block, Block] = {}
        """Blocks that do not occur, and what takes the place of each; see `restricted`."""
        self.in_networks: Callable[[list[Block]], list[Block]] | None = None
        """What takes the place of a network's blocks; see `restricted`."""
        choices: dict[str, Sequence[Choice]] = {"embed": embed, "depth": depth}
        active: dict[str, dict[str, Sequence[Choice]]] = {}
        for index in range(layers):
            # Layer i stays with depth d when fewer than `layers - d` layers are dropped before it.
            rank = self.drop_order.index(index)
            kept = [d for d in depth if rank >= layers - d]
            for name, values in (("heads", heads), ("ffn", ffn)):
                choices[f"{name}.{index}"] = values
                active[f"{name}.{index}"] = {"depth": kept}
            for part in PARTS if self.precision else ():
                choices[gene(part, index)] = self.precision
                active[gene(part, index)] = {"depth": kept}
        for part in self.ends:
            allowed = self.head_schemes if part == "head" else STORED
            choices[gene(part)] = tuple(name for name in self.precision if name in allowed)
        self.scheme_genes = tuple(name for name in choices if name.startswith(PRECISION))
        """Names of the genes that choose a scheme; none without a choice."""
        super().__init__(choices, active, minor=self.scheme_genes)

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
                        precision=self._policy(arch, index),
                    )
                )
        ends = ((part, str(arch[gene(part)])) for part in self.ends)
        return Subnet(
            embed=_integer(arch["embed"]),
            layers=tuple(layers),
            ends=tuple((part, name) for part, name in ends if name != FULL),
        )

    def _policy(self, arch: Architecture, index: int) -> Policy:
        # As the architecture has it: weights that know no policies are trained with some
        names = ((part, str(arch.get(gene(part, index), FULL))) for part in PARTS)
        return tuple((part, name) for part, name in names if name != FULL)

    def with_scheme(self, arch: Architecture, name: str) -> Architecture:
        """The architecture with one scheme everywhere; fp32 gives what others are compared with.

        Stem and head have the next finer one where they may not have it.

        Raises:
            UserError: The space does not have the scheme.
        """
        if name not in (self.precision or (FULL,)):
            raise UserError(f"scheme {name!r} is not one of space.precision {self.precision}")
        return self.architecture(
            {
                key: at_least(self.choices[key], name) if key in self.scheme_genes else value
                for key, value in arch.items()
            }
        )

    def with_random_policy(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """The widths of an architecture with a policy of this space, drawn at random.

        Half of the policies have one scheme everywhere, which genes that are drawn one by one
        hardly ever have; the other half are uniform over genes.

        Args:
            arch: Of this space, or of the same one without policies, whose genes it keeps.
            rng: Where the policy is drawn from.
        """
        if not self.precision:
            return arch
        counting = self.architecture({**dict.fromkeys(self.scheme_genes, FULL), **arch})
        genes = [name for name in self.scheme_genes if name in counting]
        alone = rng.random() < 0.5
        drawn = rng.integers(len(self.precision), size=len(genes))
        chosen = {
            name: at_least(self.choices[name], self.precision[drawn[0 if alone else place]])
            for place, name in enumerate(genes)
        }
        return self.architecture({**arch, **chosen})

    def schemes(self, arch: Architecture) -> frozenset[str]:
        """Schemes of the linear layers of a subnet that are not in fp32."""
        if not self.precision:
            return frozenset()
        subnet = self.subnet(arch)
        policies = (subnet.ends, *(layer.precision for layer in subnet.layers))
        return frozenset(name for policy in policies for _, name in policy)

    def restricted(
        self,
        instead: Mapping[Block, Block],
        in_networks: Callable[[list[Block]], list[Block]] | None = None,
    ) -> TransformerSpace:
        """The space without some blocks: architectures with them become others.

        Args:
            instead: Blocks that are not to occur, and what takes the place of each: the same
                widths with other schemes.
            in_networks: Takes what is then left of an architecture; gives what takes its place,
                or the same. Of what it gives it gives the same.
        """
        space = copy.copy(self)
        space.left_out, space.in_networks = dict(instead), in_networks
        for name in ("smallest", "largest"):  # of the whole space
            vars(space).pop(name, None)
        return space

    def decode(self, genes: ArrayLike) -> Architecture:
        """See `SearchSpace.decode`; with what takes the place of blocks that are left out."""
        arch = super().decode(genes)
        if not self._restricted:
            return arch
        blocks = list(self.blocks(arch))
        kept = self._kept(blocks)
        if kept == blocks:
            return arch
        values = dict(arch)
        for block, names in zip(kept, self.policy_genes(arch), strict=True):
            schemes = dict(block.precision)
            values |= {name: schemes.get(part, FULL) for part, name in names.items()}
        return Architecture(values)

    def decode_all(self, genes: ArrayLike) -> list[Architecture]:
        """See `SearchSpace.decode_all`; with what takes the place of blocks that are left out."""
        if not self._restricted:
            return super().decode_all(genes)
        return [self.decode(row) for row in np.asarray(genes)]

    def __contains__(self, arch: object) -> bool:
        """Whether `decode` may give it: one with a block that is left out is not of this space."""
        if not super().__contains__(arch):
            return False
        if not self._restricted:
            return True
        assert isinstance(arch, Architecture)
        blocks = list(self.blocks(arch))
        return self._kept(blocks) == blocks

    @property
    def _restricted(self) -> bool:
        return bool(self.left_out) or self.in_networks is not None

    def _kept(self, blocks: list[Block]) -> list[Block]:
        """What takes the place of an architecture's blocks."""
        kept = [self.left_out.get(block, block) for block in blocks]
        return kept if self.in_networks is None else self.in_networks(kept)

    def policy_genes(self, arch: Architecture) -> list[dict[str, str]]:
        """For each of `blocks`, the genes of its schemes by part."""
        found = [{part: gene(part) for part in self.ends}]
        for layer in self.subnet(arch).layers:
            for kind in ("attention", "ffn"):
                parts = PARTS_OF[kind] if self.precision else ()
                found.append({part: gene(part, layer.index) for part in parts})
        return found

    def blocks(self, arch: Architecture) -> tuple[Block, ...]:
        """The blocks whose costs add up to the subnet's: the fixed part, then two per layer."""
        subnet = self.subnet(arch)
        blocks = [fixed_block(subnet.embed, subnet.ends)]
        for layer in subnet.layers:
            attention, ffn = (
                _of_kind(layer.precision, kind) if layer.precision else ()
                for kind in ("attention", "ffn")
            )
            blocks.append(attention_block(subnet.embed, layer.heads, self.group, attention))
            blocks.append(ffn_block(subnet.embed, layer.ffn, ffn))
        return tuple(blocks)

    def all_blocks(self) -> tuple[Block, ...]:
        """Every distinct block of the space, those in fp32 first."""
        found: dict[Block, None] = {}
        kinds = (self.policies(kind) for kind in ("fixed", "attention", "ffn"))
        for fixed, attention, ffn in zip_longest(*kinds):
            for embed in self.choices["embed"]:
                if fixed is not None:
                    found[fixed_block(_integer(embed), fixed)] = None
                for index in range(self.max_depth):
                    for heads in self.choices[f"heads.{index}"] if attention is not None else ():
                        sizes = (_integer(embed), _integer(heads), self.group)
                        found[attention_block(*sizes, attention)] = None
                    for width in self.choices[f"ffn.{index}"] if ffn is not None else ():
                        found[ffn_block(_integer(embed), _integer(width), ffn)] = None
        return tuple(found)

    def timed_blocks(self) -> tuple[Block, ...]:
        """Every block that has a latency of its own: see `Block.timed`."""
        return tuple(dict.fromkeys(block.timed for block in self.all_blocks()))

    def policies(self, kind: str) -> list[Policy]:
        """All policies of a kind of block, fp32 first."""
        layer = self.precision[::-1] or (FULL,)
        choices = [
            layer
            if kind != "fixed"
            else self.choices[gene(part)][::-1]
            if part in self.ends
            else (FULL,)
            for part in PARTS_OF[kind]
        ]
        return [
            tuple(
                (part, str(name))
                for part, name in zip(PARTS_OF[kind], names, strict=True)
                if name != FULL
            )
            for names in product(*choices)
        ]

    def linears(self, block: Block) -> dict[str, tuple[tuple[int, int], ...]]:
        """Outputs and inputs of the linear layers of each part of a block; see the family."""
        raise NotImplementedError

    def size_bytes(self, block: Block, parameters: int) -> int:
        """Bytes of a block's parameters: fp32, but for linear layers of another scheme."""
        size = parameters * BYTES_PER_PARAMETER
        if block.precision:
            linears = self.linears(block)
            for part, name in block.precision:
                for outputs, inputs in linears[part]:
                    size += SCHEMES[name].weight_bytes(outputs, inputs)
                    size -= outputs * inputs * BYTES_PER_PARAMETER
        return size

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
        """`count` architectures, smallest to largest, every gene at the same part of its range.

        All are in fp32.
        """
        found: dict[Architecture, None] = {}
        schemes = np.array([name in self.scheme_genes for name in self.names])
        for fraction in np.linspace(0.0, 1.0, count):
            parts = np.where(schemes, 1.0, fraction)
            genes = np.floor(parts * (self.cardinalities - 1) + 0.5).astype(np.int64)
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
            # Not there without a choice: spaces from before there was one are as they were
            **({"precision": list(self.precision)} if self.precision else {}),
            **({"precision_ends": list(self.ends)} if self.ends else {}),
            **(
                {"norm_epsilon": self.norm_epsilon}
                if self.norm_epsilon != self.default_norm_epsilon
                else {}
            ),
        }

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the space."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def fixed_facts(space: Mapping[str, object]) -> dict[str, object]:
    """What all subnets of a space have in common and their costs depend on, of its `to_json`."""
    return {key: value for key, value in space.items() if key not in (*VARYING, *NUMERIC)}


def check_positive(name: str, value: float) -> None:
    """Raise UserError if `space.NAME` is no positive, finite number."""
    if not (0 < value < math.inf):
        raise UserError(f"space.{name} {value!r} is not above 0 and finite; give such a number")


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


@cache
def _of_kind(policy: Policy, kind: str) -> Policy:
    return tuple(pair for pair in policy if pair[0] in PARTS_OF[kind])


def _check_choices(name: str, choices: Sequence[int]) -> None:
    if not choices:
        raise UserError(f"space.{name} is empty; give at least one choice")
    for value in choices:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"space.{name} {value!r} is not a positive integer")
    if list(choices) != sorted(set(choices)):
        raise UserError(f"space.{name} {list(choices)} must ascend without repeats")
