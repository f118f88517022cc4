"""Policies worth a try: least expected loss within a bound on what is known at no cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from search_spaces.blocks import Block
from search_spaces.schemes import FULL
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace


def propose(
    space: TransformerSpace,
    arch: Architecture,
    losses: Mapping[str, Mapping[str, float]],
    costs: Sequence[Callable[[Block], float]],
    count: int,
) -> list[Architecture]:
    """Policies for the widths of one architecture, along its front.

    An integer program chooses one policy for each block: the losses add up, and so do the costs.
    Each cost is bounded at the same part of the way from its least to its largest possible value.
    Where the space restricts whole networks too, what gains little is what it puts in its place.

    Args:
        space: The search space; blocks that it leaves out are not chosen.
        arch: Gives the widths.
        losses: By gene and scheme, such as `supernet.sensitivity` gives; not negative.
        costs: Such as the latency of a block under a workload, or its bytes.
        count: Bounds to try, at least 1; fewer policies come back where bounds give the same.
    """
    blocks, genes = space.blocks(arch), space.policy_genes(arch)
    candidates = [
        (place, block)
        for place, given in enumerate(blocks)
        for policy in space.policies(given.kind)
        if (block := given.with_policy(policy)) not in space.left_out
    ]
    loss = np.array(
        [
            sum(losses[genes[place][part]][name] for part, name in block.precision)
            for place, block in candidates
        ]
    )
    cost = np.array([[float(of(block)) for _, block in candidates] for of in costs])
    of_place = np.array(
        [[place == wanted for place, _ in candidates] for wanted in range(len(blocks))]
    )
    low = sum(np.where(row, cost, np.inf).min(axis=1) for row in of_place)
    high = sum(np.where(row, cost, -np.inf).max(axis=1) for row in of_place)
    found: dict[Architecture, None] = {}
    for part in (np.arange(count) + 0.5) / count:
        chosen = _solve(loss, cost, of_place, low + part * (high - low))
        if chosen is not None:
            values = dict(arch)
            for place, block in (candidates[index] for index in chosen):
                schemes = dict(block.precision)
                values |= {name: schemes.get(part, FULL) for part, name in genes[place].items()}
            found[space.architecture(values)] = None
    return list(found)


def _solve(
    loss: NDArray[np.float64],
    cost: NDArray[np.float64],
    of_place: NDArray[np.bool_],
    bound: NDArray[np.float64],
) -> NDArray[np.int64] | None:
    """Indices of the chosen candidates, one for each place; None where the bounds cannot be met."""
    # Scaled, since the solver's tolerances are absolute
    scale = np.maximum(np.abs(cost).max(axis=1), 1e-30)
    result = milp(
        loss / max(loss.max(), 1e-30),
        integrality=np.ones(len(loss)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(of_place.astype(float), 1, 1),
            LinearConstraint(cost / scale[:, None], -np.inf, bound / scale),
        ],
    )
    if result.x is None:
        return None
    chosen: NDArray[np.int64] = np.flatnonzero(result.x > 0.5)
    return chosen
