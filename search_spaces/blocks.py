"""The pieces a transformer's cost adds up from: blocks, the workload they run, what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property

from search_spaces.errors import UserError
from search_spaces.schemes import FULL, SCHEMES, Policy

PRECISION = "precision."
"""What the name of a gene starts with that chooses a scheme."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one call of the model is given."""

    batch: int = 1
    """Images or sequences in one call."""
    sequence: int | None = None
    """New tokens of each sequence; None for models of images."""
    past: int = 0
    """Tokens already in the key/value cache."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch", self.batch, 1),
            ("sequence", 1 if self.sequence is None else self.sequence, 1),
            ("past", self.past, 0),
        ):
            if value < least:
                raise UserError(f"workload {name} {value} is below {least}; give at least {least}")

    @property
    def tokens(self) -> int:
        """Tokens that one call has in memory; of images, their number."""
        return self.batch * (self.past + (self.sequence or 1))

    def to_json(self) -> dict[str, int]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.to_json().items())


@dataclass(frozen=True, kw_only=True, order=True)
class Block:
    """A kind of building block with its widths; what one row of a latency table measures."""

    kind: str
    """`fixed` (stem, head, session), `attention` or `ffn`."""
    widths: tuple[tuple[str, int], ...]
    """Name and size of every width, such as `(("embed", 64), ("ffn", 256))`."""
    precision: Policy = ()
    """Linear layers that are not in fp32, such as `(("ffn_in", "w8a8"),)`."""

    @classmethod
    def of_genes(cls, kind: str, genes: Mapping[str, int | str]) -> Block:
        """The block whose `genes` these are."""
        widths = tuple(
            (name, value)
            for name, value in genes.items()
            if not name.startswith(PRECISION) and isinstance(value, int)
        )
        schemes = tuple(
            (name.removeprefix(PRECISION), str(value))
            for name, value in genes.items()
            if name.startswith(PRECISION)
        )
        return cls(kind=kind, widths=widths, precision=schemes)

    @property
    def genes(self) -> dict[str, int | str]:
        """Widths, and schemes as `precision.PART`: what stands in a table."""
        return {**dict(self.widths), **{PRECISION + part: name for part, name in self.precision}}

    @cached_property
    def timed(self) -> Block:
        """The block with the arithmetic that it runs in, which is all that its latency knows."""
        if not self.precision:
            return self
        runs = ((part, SCHEMES[name].runs_as) for part, name in self.precision)
        return replace(self, precision=tuple(pair for pair in runs if pair[1] != FULL))

    @property
    def variant(self) -> str:
        """Kind and schemes: among blocks of one, latency is a function of the widths."""
        if not self.precision:
            return self.kind
        return f"{self.kind} ({', '.join(f'{part}={name}' for part, name in self.precision)})"

    def with_policy(self, precision: Policy) -> Block:
        """The block with other schemes."""
        return replace(self, precision=precision)

    def width(self, name: str) -> int:
        """The width called `name`."""
        return dict(self.widths)[name]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value}' for name, value in self.genes.items())})"


@cache
def fixed_block(embed: int, precision: Policy = ()) -> Block:
    """Stem, head and session."""
    return Block(kind="fixed", widths=(("embed", embed),), precision=precision)


@cache
def attention_block(embed: int, heads: int, group: int, precision: Policy = ()) -> Block:
    """Attention with `group` query heads for each key/value head."""
    widths = (("embed", embed), ("heads", heads), ("kv_heads", heads // group))
    return Block(kind="attention", widths=widths, precision=precision)


@cache
def ffn_block(embed: int, ffn: int, precision: Policy = ()) -> Block:
    """A feed-forward network."""
    return Block(kind="ffn", widths=(("embed", embed), ("ffn", ffn)), precision=precision)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is known of a block or a subnet without running it."""

    macs: int = 0
    """Multiply-accumulates of all matrix products (attention's too) in one call."""
    parameters: int = 0
    """Weights and biases."""
    size_bytes: int = 0
    """Bytes of the parameters, in fp32 but for what has another scheme."""
    kv_cache_bytes: int = 0
    """Bytes of the key/value cache after the call, in fp32; 0 for models of images."""
