"""Precision policies of a search: which are left out, and which it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from nas.stages.supernet import TrainedSupernet
from predictors.policies import slow_blocks, without_small_gains
from predictors.proposals import propose
from predictors.protocol import ArchitecturePredictor
from predictors.table import TablePredictor
from search_spaces import Architecture, Block, TransformerSpace, Workload
from search_spaces.schemes import FULL, SCHEMES
from supernet.sensitivity import Sensitivities, sensitivities

PROPOSALS = 3
"""Policies that a search starts from, for each architecture that it starts from in fp32."""

BlockCost = Callable[[Block], float]


def without_slow_blocks(
    space: TransformerSpace, predictors: Mapping[str, ArchitecturePredictor]
) -> TransformerSpace:
    """The space without schemes that the tables say do not pay, in a block or in a network."""
    latencies = block_latencies(predictors)
    if not latencies or all(SCHEMES[name].runs_as == FULL for name in space.precision):
        return space
    return space.restricted(slow_blocks(space, latencies), without_small_gains(space, latencies))


def block_latencies(predictors: Mapping[str, ArchitecturePredictor]) -> list[BlockCost]:
    """Latency of a block under each workload that has a table, ms."""
    tables = [one for one in predictors.values() if isinstance(one, TablePredictor)]
    return [partial(one.table.latency_ms, one.workload) for one in tables]


def block_bytes(space: TransformerSpace, workload: Workload) -> BlockCost:
    """Bytes of a block's weights."""
    return lambda block: space.block_cost(block, workload).size_bytes


def measure_sensitivities(supernet: TrainedSupernet, arch: Architecture) -> Sensitivities:
    """Sensitivities of a subnet on the first batch of the training split."""
    with torch.inference_mode(False):
        inputs, targets = next(supernet.task.split("train"))
        return sensitivities(supernet.model, arch, inputs, targets)


def proposals(
    supernet: TrainedSupernet,
    space: TransformerSpace,
    architectures: Sequence[Architecture],
    costs: Sequence[BlockCost],
) -> list[Architecture]:
    """Policies along the front of each architecture; none where there is nothing to choose.

    Args:
        supernet: Trained and calibrated.
        space: Its space, without the blocks that are left out.
        architectures: Widths to find policies for.
        costs: What the policies are to save.
    """
    if not space.precision or not costs:
        return []
    found: dict[Architecture, None] = {}
    for arch in architectures:
        losses = measure_sensitivities(supernet, arch)
        found |= dict.fromkeys(propose(space, arch, losses, costs, PROPOSALS))
    return [arch for arch in found if arch not in architectures]
