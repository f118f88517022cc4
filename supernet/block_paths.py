"""Where the blocks of an architecture are in its plain module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def by_path(of_blocks: Sequence[Mapping[str, Value]]) -> dict[str, Mapping[str, Value]]:
    """What the parts of each block have, by the block's name in a plain module.

    Args:
        of_blocks: Something by part, for each of `TransformerSpace.blocks`: stem and head, then
            attention and FFN of one layer after the other.
    """
    ends, *layers = of_blocks
    found: dict[str, Mapping[str, Value]] = {part: {part: value} for part, value in ends.items()}
    for place, parts in enumerate(layers):
        found[f"{('attention', 'ffn')[place % 2]}.{place // 2}"] = parts
    return found
