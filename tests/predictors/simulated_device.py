"""Devices whose law is known: a cost for every block, and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from latency.statistics import t_quantile
from latency.table import LatencyTable, TableRow
from search_spaces import Architecture, Block, TransformerSpace, VisionTransformerSpace

SPACE = VisionTransformerSpace(
    image_size=8,
    patch_size=2,
    channels=1,
    num_classes=10,
    head_dim=16,
    embed=(32, 64, 96),
    depth=(1, 2, 3, 4),
    heads=(1, 2, 4),
    ffn=(32, 64, 256),
)
COST = {"fixed": 0.02, "attention": 0.005, "ffn": 0.0004}
Law = Callable[[Block], float]


def random_device(rng: np.random.Generator) -> Law:
    """What a block costs in ms: devices differ in speed, in kinds, in how widths count."""
    speed, each = rng.uniform(0.3, 6.0), rng.uniform(0.0, 0.1)
    kinds = {kind: cost * rng.uniform(0.5, 2.0) for kind, cost in COST.items()}
    exponents = {kind: rng.uniform(0.6, 0.95) for kind in COST}

    def law(block: Block) -> float:
        width = math.prod(dict(block.widths).values())
        return float(speed * (each + kinds[block.kind] * width ** exponents[block.kind]))

    return law


def measured_table(
    law: Law,
    noise: float,
    rng: np.random.Generator,
    *,
    space: TransformerSpace = SPACE,
    workload: str = "latency",
    sessions: int = 5,
) -> LatencyTable:
    """A table whose rows err by `noise`, and as their intervals say."""
    rows = []
    for block in space.all_blocks():
        seen = law(block) * (1 + noise * sessions**0.5 * rng.standard_normal(sessions))
        half_width = t_quantile(sessions - 1) * float(seen.std(ddof=1)) / sessions**0.5
        rows.append(
            TableRow(
                block=block,
                workload=workload,
                latency_ms=float(seen.mean()),
                low_ms=float(seen.mean()) - half_width,
                high_ms=float(seen.mean()) + half_width,
                sessions=sessions,
                status="ok",
            )
        )
    return LatencyTable(rows)


def measured_whole(
    law: Law,
    architectures: Sequence[Architecture],
    noise: float,
    rng: np.random.Generator,
    space: TransformerSpace = SPACE,
) -> np.ndarray:
    """Latency of whole subnets, shape `(n,)`, ms."""
    sums = [sum(law(block) for block in space.blocks(arch)) for arch in architectures]
    return np.array(sums) * np.exp(noise * rng.standard_normal(len(sums)))


def draw(count: int, rng: np.random.Generator) -> list[Architecture]:
    """Different architectures, uniform over genes."""
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[SPACE.sample(rng)] = None
    return list(found)
