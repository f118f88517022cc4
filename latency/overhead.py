"""What a chain of blocks costs beside its blocks: calling the runtime, inputs, positions.

It is of the kind of block and hardly of its widths (between 5.5 and 6.7 us for all nine attention
blocks of the digits example, 3.7 to 4.9 us for its FFN blocks). So it is measured on the smallest
blocks of a kind, where it is the largest share, and each other block needs one chain only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from latency.measurement import Measurement
from latency.resources import RESOURCES, Amount, amounts_of
from latency.statistics import mean_interval
from search_spaces.blocks import Block
from search_spaces.errors import UserError

FEW, MANY = 2, 8
"""Copies of a block in the two chains that tell blocks from overhead."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What a chain without blocks would take; nothing for a network that is measured as it is."""

    ratio: float = 0.0
    """Latency in units of the anchor's."""
    half_width: float = 0.0
    """Half-width of its 95 % interval."""
    resources: Mapping[str, Amount | None] = field(default_factory=dict)
    """By name (`latency.resources.RESOURCES`); None where the device does not tell."""

    quick: bool = False
    """Whether some of its sessions were in quick mode."""

    def resource(self, name: str) -> Amount:
        """What of a resource goes off a chain."""
        return self.resources.get(name) or (0.0, 0.0)


def references(blocks: Sequence[Block]) -> list[Block]:
    """The smallest blocks of each kind, at its least and at its largest embedding width."""
    found = []
    for kind in dict.fromkeys(block.kind for block in blocks if block.kind != "fixed"):
        # What a chain costs beside its blocks is the same for every scheme
        members = [block for block in blocks if block.kind == kind and not block.precision]
        embeds = [block.width("embed") for block in members]
        for embed in sorted({min(embeds), max(embeds)}):
            found.append(min((b for b in members if b.width("embed") == embed), key=_size))
    return found


def _size(block: Block) -> int:
    return math.prod(width for _, width in block.widths)


def overhead_of(pairs: Sequence[tuple[Measurement, Measurement]]) -> Overhead:
    """The overhead of a kind of block.

    Args:
        pairs: Measurements of the chains of `FEW` and of `MANY`, timed in the same sessions, of
            each reference of the kind.

    Raises:
        UserError: A pair has fewer than two sessions in common.
    """
    means, widths = [], []
    for few, many in pairs:
        values = [
            chain_overhead(few.session_ratios[session], many.session_ratios[session])
            for session in few.session_ratios
            if session in many.session_ratios
        ]
        if len(values) < 2:
            worst = min(few, many, key=lambda one: one.sessions)
            raise UserError(
                f"a short chain of blocks could not be measured: {worst.status}, {worst.message}; "
                "run `nas doctor` for this device, then the same command again"
            )
        mean, half_width = mean_interval(values)
        means.append(mean)
        widths.append(half_width)
    together = math.hypot(*widths) / len(widths)
    apart = (max(means) - min(means)) / 2
    return Overhead(
        ratio=max(fmean(means), 0.0),
        half_width=max(together, apart),
        resources={name: _resource(name, pairs) for name in RESOURCES},
        quick=any(one.quick for chains in pairs for one in chains),
    )


def chain_overhead(few: float, many: float) -> float:
    """What is left of two chains for no block at all."""
    return (MANY * few - FEW * many) / (MANY - FEW)


def _resource(name: str, pairs: Sequence[tuple[Measurement, Measurement]]) -> Amount | None:
    """The mean of the pairs' overheads."""
    values, widths = [], []
    for chains in pairs:
        few, many = (amounts_of(one)[name] for one in chains)
        if few is None or many is None:
            return None
        values.append(max(chain_overhead(few[0], many[0]), 0.0))
        widths.append(math.hypot(MANY * few[1], FEW * many[1]) / (MANY - FEW))
    return fmean(values), math.hypot(*widths) / len(widths)
