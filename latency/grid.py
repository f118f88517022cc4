"""Which blocks of a space are measured, and in which order.

Corners first, then ever finer, so that a table that stopped early can interpolate the rest; a few
blocks are set apart from the start, to say how wrong that is. Blocks with schemes in both parts
come last: they are about the sum of what each changes alone (`latency.added_schemes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.blocks import Block

WHOLE_BLOCKS = 128
"""A space of at most so many blocks is measured whole, unless a grid is asked for."""
GRID_POINTS = 8
"""Widths of each axis that are measured in a larger space."""
HELD_OUT = 6
"""Blocks of each kind that are measured to state the error of interpolation, at most."""
STEP_BLOCKS = 48
"""Blocks of a step, at most; the first has all it needs. A table can be used after each."""
JOINED_BLOCKS = 12
"""A step of fewer blocks than this is joined with the next one, to fill its sessions."""

Point = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The blocks to measure, in steps; after each of them, the table can be used."""

    steps: tuple[tuple[Block, ...], ...]
    held_out: frozenset[Block]
    """Never interpolated from; measured before other blocks of their schemes, but for corners."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks that are measured, in order."""
        return tuple(block for step in self.steps for block in step)


def point(block: Block) -> Point:
    """Where a block lies on the axes of its kind: embedding width, then heads or FFN width.

    Further widths (key/value heads) follow from these. A block with one width has 0 as second.
    """
    sizes = [size for _, size in block.widths[:2]]
    return (sizes[0], sizes[1] if len(sizes) > 1 else 0)


def plan(blocks: Sequence[Block], grid: int | None = None) -> Plan:
    """Plan the measurement of a space's blocks.

    Args:
        blocks: All distinct blocks of the space.
        grid: Widths of each axis to measure, at least 2; an axis with no more than that is
            measured whole. None measures all blocks of a space with up to `WHOLE_BLOCKS`, else
            `GRID_POINTS` of each axis.

    Returns:
        Every block at most once; the first step has the corners of every kind, in fp32 and with
        every scheme in one part.
    """
    points = grid or (max(len(blocks), 2) if len(blocks) <= WHOLE_BLOCKS else GRID_POINTS)
    ranks: dict[Block, int] = {}
    held_out: set[Block] = set()
    for variant in dict.fromkeys(block.variant for block in blocks):
        members = [block for block in blocks if block.variant == variant]
        found = _ranks(members, points)
        ranks |= found
        held_out |= _held_out(members, found)
    groups: dict[tuple[bool, int], list[Block]] = {}
    for block in (block for block in blocks if block in ranks or block in held_out):
        both = len(block.precision) > 1
        # Corners do not wait for blocks that tell the error of schemes
        apart = int(bool(block.precision) and not both)
        rank = apart if block in held_out else ranks[block]
        groups.setdefault((both, rank), []).append(block)
    ordered = [sorted(groups[key], key=lambda b: b not in held_out) for key in sorted(groups)]
    return Plan(steps=tuple(_steps(ordered)), held_out=frozenset(held_out))


def _ranks(members: Sequence[Block], points: int) -> dict[Block, int]:
    """How early each block of a kind that lies on the grid is measured, from 0.

    A width comes before an embedding of the same level: the ends of an embedding's widths are
    what its inner ones are interpolated from.
    """
    embeds = _levels({point(block)[0] for block in members}, points)
    widths = _levels({point(block)[1] for block in members}, points)
    ranks = {}
    for block in members:
        embed, width = point(block)
        if embed in embeds and width in widths:
            ranks[block] = max(2 * embeds[embed], 2 * widths[width] - 1, 0)
            if embeds[embed] and widths[width] > 0:
                ranks[block] = max(ranks[block], 2 * embeds[embed] + 1)
    return ranks


def _levels(values: Iterable[int], points: int) -> dict[int, int]:
    """The chosen values of an axis: 0 for its ends, 1 for the middle, 2 for the quarters, ..."""
    axis = sorted(set(values))
    if points < len(axis):
        chosen = np.unique(np.linspace(0, len(axis) - 1, points).round().astype(int))
        axis = [axis[index] for index in chosen]
    levels = {axis[0]: 0, axis[-1]: 0}
    gaps, level = [(0, len(axis) - 1)], 0
    while gaps:
        level += 1
        halves = []
        for low, high in gaps:
            middle = (low + high) // 2
            if low < middle < high:
                levels[axis[middle]] = level
                halves += [(low, middle), (middle, high)]
        gaps = halves
    return levels


def _held_out(members: Sequence[Block], ranks: Mapping[Block, int]) -> set[Block]:
    """Blocks to state the error on: off the grid where there are such, never at an axis' end."""
    axis = 1 if any(point(block)[1] for block in members) else 0
    along = [point(block)[axis] for block in members]
    inner = [block for block in members if min(along) < point(block)[axis] < max(along)]
    outside = [block for block in inner if block not in ranks]
    count = min(HELD_OUT, len(outside)) if outside else min(HELD_OUT, len(inner) // 3)
    candidates = outside or inner
    chosen = np.random.default_rng(0).permutation(len(candidates))[:count]
    return {candidates[int(index)] for index in chosen}


def _steps(groups: Sequence[Sequence[Block]]) -> list[tuple[Block, ...]]:
    """Groups as steps that are neither too short to fill their sessions nor too long to wait.

    The first group is not split: before it is there, rows are missing.
    """
    steps: list[list[Block]] = []
    for group in groups:
        waiting = [*steps.pop(), *group] if steps and len(steps[-1]) < JOINED_BLOCKS else group
        first = STEP_BLOCKS if steps else max(STEP_BLOCKS, len(groups[0]))
        starts = [0, *range(first, len(waiting), STEP_BLOCKS)]
        ends = [*starts[1:], len(waiting)]
        steps += [list(waiting[a:b]) for a, b in zip(starts, ends, strict=True)]
    return [tuple(step) for step in steps]
