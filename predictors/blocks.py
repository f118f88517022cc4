"""How often each block of a space occurs in architectures: what latency is a sum over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Architecture, Choice
from search_spaces.transformer import TransformerSpace


class BlockCounts:
    """Counts the blocks of many architectures at once, without a loop over their layers.

    Args:
        space: Which blocks there are; a column for each of `space.all_blocks()`.
    """

    def __init__(self, space: TransformerSpace) -> None:
        self.space = space
        self.blocks = space.all_blocks()
        column: dict[tuple[str, tuple[Choice, ...]], int] = {
            (block.kind, tuple(width for name, width in block.widths if name != "kv_heads")): place
            for place, block in enumerate(self.blocks)
        }
        names = list(space.names)
        layers = range(space.max_depth)
        self._embed, self._depth = names.index("embed"), names.index("depth")
        embeds = space.choices["embed"]
        # Of each gene of a layer: its place, and the block's column by choice of embed and its own.
        self._genes: list[int] = []
        self._columns: list[NDArray[np.int64]] = []
        for kind, gene in (("attention", "heads"), ("ffn", "ffn")):
            for layer in layers:
                name = f"{gene}.{layer}"
                self._genes.append(names.index(name))
                self._columns.append(
                    np.array(
                        [
                            [column[kind, (e, width)] for width in space.choices[name]]
                            for e in embeds
                        ]
                    )
                )
        self._fixed = np.array([column["fixed", (e,)] for e in embeds])
        genes = np.zeros((len(space.choices["depth"]), space.dimensions), dtype=np.int64)
        genes[:, self._depth] = np.arange(len(genes))
        self._kept = np.array([space.active_mask(row) for row in genes])[:, self._genes]

    def __call__(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Number of times that each block occurs, shape `(n, blocks)`.

        Raises:
            UserError: An architecture is not of the space.
        """
        genes = self.space.encode_all(architectures)  # (n, d)
        embed, width = genes[:, self._embed], len(self.blocks)
        kept = self._kept[genes[:, self._depth]]  # (n, 2 * layers)
        first = np.arange(len(genes)) * width
        counts = np.bincount(first + self._fixed[embed], minlength=len(genes) * width)
        for place, (gene, columns) in enumerate(zip(self._genes, self._columns, strict=True)):
            here = kept[:, place]
            flat = (first + columns[embed, genes[:, gene]])[here]
            counts += np.bincount(flat, minlength=len(genes) * width)
        return counts.reshape(len(genes), width).astype(np.float64)
