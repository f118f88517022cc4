"""Blocks with several schemes, from blocks that have one of them each.

To first order a scheme changes the latency of its own part and of nothing else, so that the changes
add up: of `p` parts with `s` schemes, `1 + p (s - 1)` combinations stand for all `s^p`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latency.interpolation import InterpolationError
from search_spaces.blocks import Block


def added_up(values: Mapping[Block, float], block: Block) -> float | None:
    """What a block should take: fp32, and what each of its schemes alone changes of that.

    Args:
        values: Of any unit that adds up, by block.
        block: With two schemes or more.

    Returns:
        At least 0; None if a value that is needed is not there.
    """
    base = values.get(block.with_policy(()))
    alone = [values.get(block.with_policy((pair,))) for pair in block.precision]
    if base is None or None in alone:
        return None
    return max(base + sum(value - base for value in alone if value is not None), 0.0)


def error_of_sums(
    workload: str,
    kind: str,
    wanted: int,
    latency_ms: Mapping[Block, float],
    measured: Sequence[Block],
) -> InterpolationError:
    """How far off the sums are.

    Args:
        workload: Name of the workload.
        kind: Kind of the blocks.
        wanted: Blocks that get a sum for a row.
        latency_ms: By block.
        measured: Blocks of the kind with several schemes that were measured.
    """
    sums = {block: added_up(latency_ms, block) for block in measured if latency_ms[block] > 0}
    errors = [ms / latency_ms[block] - 1 for block, ms in sums.items() if ms is not None]
    return InterpolationError.of(workload, f"{kind} (several schemes)", "sum", wanted, errors)
