"""Number formats that a matrix product may run in, and the bytes that its weights then take.

The numerics are in `supernet.quantization`; here is what a search has to know of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from search_spaces.errors import UserError

FULL: Final = "fp32"
"""The scheme that changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How the weights and the input of a linear layer are represented."""

    name: str
    weight_bits: int
    """Bits of one stored weight, its scale apart."""
    integer: bool
    """Whether weights are integers with a scale per output, or per group of inputs."""
    group: int | None = None
    """Inputs of an output that share one scale; None for all of them."""
    activations: Literal["float", "static", "dynamic"] = "float"
    """Inputs as they are, or as 8-bit integers with a range known before or found at each call."""
    runs_as: str = FULL
    """Scheme whose arithmetic it has: one that is only stored in fewer bits runs as fp32."""
    version: int = 1
    """Of its numbers and of its form in a file: raised with either, so that what was stored before
    is not taken for it."""

    def weight_bytes(self, outputs: int, inputs: int) -> int:
        """Bytes of the weights of a linear layer in a file, scales and ranges included."""
        groups = 1 if self.group is None else -(-inputs // self.group)
        padded = inputs if self.group is None else groups * self.group
        scales = SCALE_BYTES * outputs * groups if self.integer else 0
        ranges = RANGE_BYTES if self.activations == "static" else 0
        return outputs * padded * self.weight_bits // 8 + scales + ranges


SCALE_BYTES = 4
"""A scale is fp32."""
RANGE_BYTES = 5
"""Scale and zero point of an input whose range is known before."""

SCHEMES: Final[Mapping[str, Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="w4_nbits", weight_bits=4, integer=True, group=32, runs_as="w4_nbits"),
        Scheme(name="w4", weight_bits=4, integer=True, group=32),
        Scheme(
            name="w8a8_dynamic",
            weight_bits=8,
            integer=True,
            activations="dynamic",
            runs_as="w8a8_dynamic",
        ),
        Scheme(name="w8a8", weight_bits=8, integer=True, activations="static", runs_as="w8a8"),
        Scheme(name="w8", weight_bits=8, integer=True),
        Scheme(name="bf16", weight_bits=16, integer=False),
        Scheme(name="fp16", weight_bits=16, integer=False),
        Scheme(name=FULL, weight_bits=32, integer=False),
    )
}
"""All schemes by name, from coarse to fine: the order of a gene's choices. Of two with the same
numbers, the one that has an arithmetic of its own comes first: where it does not pay, the other
takes its place."""

PARTS: Final = ("qkv", "attention_out", "ffn_in", "ffn_out")
"""Linear layers of a transformer layer whose scheme is a gene each."""
ENDS: Final = ("stem", "head")
"""Embedding and classifier, whose scheme is a gene each in spaces that ask for it."""
PARTS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "fixed": ENDS,
    "attention": PARTS[:2],
    "ffn": PARTS[2:],
}
"""Those of each kind of block."""

Policy = tuple[tuple[str, str], ...]
"""Part and scheme of what is not fp32, in the order of `PARTS` or `ENDS`."""
STORED: Final = tuple(name for name, scheme in SCHEMES.items() if scheme.runs_as == FULL)
"""Schemes of weights that are no factor of a matrix product: fewer bits in the file alone."""


def later_versions(names: Iterable[str]) -> dict[str, int]:
    """Versions of those schemes that are not in their first: what a key of a store has to say."""
    versions = {name: SCHEMES[name].version for name in sorted(names)}
    return {name: version for name, version in versions.items() if version > 1}


def with_version(name: str) -> str:
    """What a table calls a scheme, so that rows of another version are not taken for its own.

    A first version has the scheme's plain name: `w8a8`, then `w8a8 2`.
    """
    version = SCHEMES[name].version
    return name if version == 1 else f"{name} {version}"


def check_versioned(text: object) -> None:
    """Check what a table calls a scheme: one of this or an earlier version.

    Raises:
        UserError: There is no such scheme, or no such version of it yet.
    """
    name, _, number = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if name not in SCHEMES:
        raise UserError(f"{text!r} is not one of {', '.join(SCHEMES)}")
    latest, version = SCHEMES[name].version, int(number) if number.isdecimal() else 0
    if text != name and (version < 2 or f"{name} {version}" != text):
        raise UserError(f"{text!r} is not {name} with a version, such as '{name} 2'")
    if version > latest:
        raise UserError(
            f"{text!r} is of a later version than this one's {name} {latest}; upgrade elastic-nas"
        )
