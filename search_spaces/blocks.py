"""The pieces a transformer's cost adds up from: blocks, the workload they run, what they cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from search_spaces.errors import UserError


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

    def width(self, name: str) -> int:
        """The width called `name`."""
        return dict(self.widths)[name]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value}' for name, value in self.widths)})"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is known of a block or a subnet without running it."""

    macs: int = 0
    """Multiply-accumulates of all matrix products (attention's too) in one call."""
    parameters: int = 0
    """Weights and biases."""
    size_bytes: int = 0
    """Bytes of the parameters in fp32."""
    kv_cache_bytes: int = 0
    """Bytes of the key/value cache after the call, in fp32; 0 for models of images."""
