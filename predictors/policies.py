"""Schemes that do not pay: what the search puts in the place of a block that they slow down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from search_spaces.blocks import Block
from search_spaces.schemes import FULL, SCHEMES
from search_spaces.transformer import TransformerSpace

LEAST_GAIN = 0.02
"""Share of a latency that a scheme has to save: less may be an error of the table."""
LEAST = 1e-12
"""In place of a latency of 0, which interpolation may give, ms."""


def slow_blocks(
    space: TransformerSpace, latencies: Sequence[Callable[[Block], float]]
) -> dict[Block, Block]:
    """Blocks with a scheme that does not make them faster, and the next finer ones without such.

    A scheme with an arithmetic of its own has to pay for itself: under every workload, the block
    must be faster by `LEAST_GAIN` than with that part in fp32, and no slower than with all in fp32.
    One that is only stored in fewer bits costs no time.

    Args:
        space: Gives blocks and schemes.
        latencies: Latency of a block under each workload.
    """
    instead = {}
    for block in space.all_blocks():
        found = block
        while (part := _slow_part(found, latencies)) is not None:
            found = _finer(found, part, space.precision)
        plain = _in_floats(found, space.precision)
        if any(latency(found) > latency(plain) for latency in latencies):
            found = plain
        if found != block:
            instead[block] = found
    return instead


def without_small_gains(
    space: TransformerSpace, latencies: Sequence[Callable[[Block], float]]
) -> Callable[[list[Block]], list[Block]]:
    """What takes the place of networks that integer arithmetic hardly speeds up.

    A single layer with 8-bit inputs in a network of floats is slower than in the chain of its
    table's row, which repeats it: some workload has to gain `LEAST_GAIN` of the whole network's
    latency, and none may lose, or all such layers have the next finer scheme that runs as fp32.

    Args:
        space: Gives the schemes.
        latencies: Latency of a block under each workload.

    Returns:
        Takes the blocks of a network; gives these or others of the same widths.
    """
    in_floats = cache(partial(_in_floats, schemes=space.precision))

    @cache
    def of(block: Block) -> NDArray[np.float64]:
        return np.array([latency(block) for latency in latencies])

    def in_networks(blocks: list[Block]) -> list[Block]:
        others = [in_floats(block) for block in blocks]
        if others == blocks:
            return blocks
        ours, theirs = (np.sum([of(one) for one in some], axis=0) for some in (blocks, others))
        pays = (ours <= (1 - LEAST_GAIN) * theirs).any() and (ours <= theirs).all()
        return blocks if pays else others

    return in_networks


def _in_floats(block: Block, schemes: Sequence[str]) -> Block:
    """The block with the next finer schemes that run as fp32."""
    while integer := [part for part, name in block.precision if SCHEMES[name].runs_as != FULL]:
        block = _finer(block, integer[0], schemes)
    return block


def _slow_part(block: Block, latencies: Sequence[Callable[[Block], float]]) -> str | None:
    """The part whose scheme costs the most time; None where all pay."""
    lost = {}
    for part, name in block.precision:
        if SCHEMES[name].runs_as != FULL:
            rest = block.with_policy(tuple(p for p in block.precision if p[0] != part))
            lost[part] = max(latency(block) / max(latency(rest), LEAST) for latency in latencies)
    slow = {part: ratio for part, ratio in lost.items() if ratio > 1 - LEAST_GAIN}
    return max(slow, key=lambda part: slow[part]) if slow else None


def _finer(block: Block, part: str, schemes: Sequence[str]) -> Block:
    """The block with the next finer scheme of a part, fp32 being left out of its policy."""
    policy = []
    for name, scheme in block.precision:
        if name == part:
            scheme = schemes[schemes.index(scheme) + 1]
        if scheme != FULL:
            policy.append((name, scheme))
    return block.with_policy(tuple(policy))
