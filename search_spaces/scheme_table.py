"""Schemes that take the place of others in a space that leaves blocks out, as choice indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.blocks import Block
from search_spaces.schemes import FULL
from search_spaces.space import Choice

Genes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SchemeTable:
    """What the blocks of one kind have instead of the schemes that are given."""

    widths: tuple[str, ...]
    """Names of the widths that tell the blocks apart."""
    parts: tuple[str, ...]
    """Parts with a scheme, at least one."""
    instead: Genes
    """Choice indices, shape `(*widths, *parts, p)`: `p` schemes by those of widths and parts."""

    @classmethod
    def of_blocks(
        cls,
        instead: Mapping[Block, Block],
        widths: Mapping[str, Sequence[Choice]],
        parts: Mapping[str, Sequence[Choice]],
    ) -> SchemeTable:
        """Tabulate blocks.

        Args:
            instead: Blocks of one kind, and what takes the place of each: others of its schemes.
            widths: Choices of each width.
            parts: Choices of the scheme of each part.
        """
        shape = [len(choices) for choices in (*widths.values(), *parts.values())]
        table: Genes = np.moveaxis(np.indices(shape, dtype=np.int64)[len(widths) :], 0, -1).copy()
        for block, other in instead.items():
            sizes = [list(choices).index(block.width(name)) for name, choices in widths.items()]
            table[(*sizes, *_schemes(block, parts))] = _schemes(other, parts)
        return cls(widths=tuple(widths), parts=tuple(parts), instead=table)

    def apply(self, genes: Genes, widths: Sequence[int], schemes: Sequence[int]) -> None:
        """Replace schemes, in place.

        Args:
            genes: Choice indices, shape `(n, d)`.
            widths: Columns of the widths.
            schemes: Columns of the schemes.
        """
        genes[:, schemes] = self.instead[tuple(genes[:, [*widths, *schemes]].T)]


def _schemes(block: Block, parts: Mapping[str, Sequence[Choice]]) -> list[int]:
    policy = dict(block.precision)
    return [list(choices).index(policy.get(part, FULL)) for part, choices in parts.items()]
