"""Latency of a transformer as a sum over its blocks: one machine's, the same on every machine.

A measured table differs from machine to machine, and a benchmark of search may not. So each block
costs what a simple machine would take: the longer of computing and reading its weights (the
roofline model, Williams et al., 2009, 10.1145/1498765.1498785), and a fixed time to start it. The
constants lie near what the digits and text examples measured with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from predictors.blocks import BlockCounts
from search_spaces import Architecture, Block, TransformerSpace, Workload

MACS_PER_US = 25_000.0
BYTES_PER_US = 12_000.0
START_US = {"fixed": 9.0, "attention": 7.0, "ffn": 3.0}

Column = Callable[[Sequence[Architecture]], NDArray[np.float64]]


def latency_ms(space: TransformerSpace, workload: Workload) -> Column:
    """Milliseconds of one call, shape `(n,)`, for n architectures."""

    def block_ms(block: Block) -> float:
        cost = space.block_cost(block, workload)
        read = cost.size_bytes + cost.kv_cache_bytes
        busy_us = max(cost.macs / MACS_PER_US, read / BYTES_PER_US)
        return (busy_us + START_US[block.kind]) / 1000

    return _sum(space, block_ms)


def size_mb(space: TransformerSpace) -> Column:
    """Megabytes of the weights, shape `(n,)`."""
    workload = space.default_workload
    return _sum(space, lambda block: space.block_cost(block, workload).size_bytes / 1e6)


def _sum(space: TransformerSpace, of_block: Callable[[Block], float]) -> Column:
    counts = BlockCounts(space)
    costs = np.array([of_block(block) for block in counts.blocks])

    def column(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = counts(architectures) @ costs
        return values

    return column
