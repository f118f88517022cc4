"""How often each block of a space occurs in architectures: what latency is a sum over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search_spaces.policy_genes import gene
from search_spaces.schemes import FULL, PARTS_OF, Policy
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
        column: dict[tuple[str, tuple[Choice, ...], Policy], int] = {
            (
                block.kind,
                tuple(width for name, width in block.widths if name != "kv_heads"),
                block.precision,
            ): place
            for place, block in enumerate(self.blocks)
        }
        names = list(space.names)
        layers = range(space.max_depth)
        self._embed, self._depth = names.index("embed"), names.index("depth")
        embeds = space.choices["embed"]
        # Of each block of a layer: the places of its genes, its width first, and its column by the
        # choices of embed and of these.
        self._genes: list[list[int]] = []
        self._columns: list[NDArray[np.int64]] = []
        for kind, width in (("attention", "heads"), ("ffn", "ffn")):
            parts = PARTS_OF[kind] if space.precision else ()
            for layer in layers:
                genes = [f"{width}.{layer}", *(gene(part, layer) for part in parts)]
                self._genes.append([names.index(name) for name in genes])
                choices = [space.choices[name] for name in genes]
                found = [
                    column[kind, (e, chosen[0]), _policy(parts, chosen[1:])]
                    for e in embeds
                    for chosen in product(*choices)
                ]
                shape = (len(embeds), *map(len, choices))
                self._columns.append(np.array(found).reshape(shape))
        ends = [gene(part) for part in space.ends]
        self._ends = [names.index(name) for name in ends]
        choices = [space.choices[name] for name in ends]
        fixed = [
            column["fixed", (e,), _policy(space.ends, chosen)]
            for e in embeds
            for chosen in product(*choices)
        ]
        self._fixed = np.array(fixed).reshape(len(embeds), *map(len, choices))
        depths = np.zeros((len(space.choices["depth"]), space.dimensions), dtype=np.int64)
        depths[:, self._depth] = np.arange(len(depths))
        widths = [own[0] for own in self._genes]
        self._kept = np.array([space.active_mask(row) for row in depths])[:, widths]

    def __call__(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Number of times that each block occurs, shape `(n, blocks)`.

        Raises:
            UserError: An architecture is not of the space.
        """
        genes = self.space.encode_all(architectures)  # (n, d)
        embed, width = genes[:, self._embed], len(self.blocks)
        kept = self._kept[genes[:, self._depth]]  # (n, 2 * layers)
        first = np.arange(len(genes)) * width
        fixed = self._fixed[(embed, *genes[:, self._ends].T)]
        counts = np.bincount(first + fixed, minlength=len(genes) * width)
        for place, (own, columns) in enumerate(zip(self._genes, self._columns, strict=True)):
            here = kept[:, place]
            flat = (first + columns[(embed, *genes[:, own].T)])[here]
            counts += np.bincount(flat, minlength=len(genes) * width)
        return counts.reshape(len(genes), width).astype(np.float64)


def _policy(parts: Sequence[str], names: Sequence[Choice]) -> Policy:
    pairs = zip(parts, names, strict=True)
    return tuple((part, str(name)) for part, name in pairs if name != FULL)
