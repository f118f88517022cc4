"""After training: does quality grow with size? If not, the supernet misleads every search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace

HIGHER_IS_BETTER: Final = frozenset({"accuracy"})
"""Metrics of which more is better; of all others less is."""

LIMIT_SE: Final = 2.0
"""A larger subnet is worse when it is so by more than this many combined standard errors."""


class HasSize(Protocol):
    """What a row says of the cost of a subnet; `search_spaces.Cost` has it."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""

    @property
    def parameters(self) -> int:
        """Weights and biases."""


def sanity_table(
    space: TransformerSpace,
    evaluate: Callable[[Architecture], Mapping[str, float]],
    *,
    quality: str,
    cost: Callable[[Architecture], HasSize] | None = None,
    count: int = 5,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Quality of uniform subnets by size, and warnings where a larger one is worse.

    Args:
        space: Gives the uniform subnets.
        evaluate: Metrics of a subnet on the validation split; standard errors as `<metric>_se`.
        quality: The metric to compare, such as `error` or `bits_per_byte`.
        cost: Size of a subnet; `space.cost` by default.
        count: Number of subnets.

    Returns:
        Rows from small to large with `name`, `architecture`, `parameters`, `macs` and `metrics`,
        ready for JSON; and one line of warning for each subnet that is worse than a smaller one by
        more than `LIMIT_SE` combined standard errors, or whose quality is not a number.

    Raises:
        KeyError: `evaluate` does not give `quality`.
    """
    rows = []
    for index, arch in enumerate(space.uniform(count)):
        size = (cost or space.cost)(arch)
        rows.append(
            {
                "name": f"uniform-{index}",
                "architecture": dict(arch),
                "parameters": size.parameters,
                "macs": size.macs,
                "metrics": dict(evaluate(arch)),
            }
        )
    return rows, sanity_warnings(rows, quality)


def sanity_warnings(rows: Sequence[Mapping[str, Any]], quality: str) -> list[str]:
    """One line for each row that is worse than a smaller one, or not a number."""
    sign = -1.0 if quality in HIGHER_IS_BETTER else 1.0
    warnings = []
    ordered = sorted(rows, key=lambda row: int(row["parameters"]))
    for index, larger in enumerate(ordered):
        value = larger["metrics"][quality]
        if not math.isfinite(value):
            warnings.append(
                f"SUPERNET NOT SANE: {quality} of {larger['name']} is {value}; train again with a "
                "lower learning_rate"
            )
            continue
        worst, excess = None, 0.0
        for smaller in ordered[:index]:
            gap = sign * (value - smaller["metrics"][quality])
            over = gap - LIMIT_SE * _combined_error(larger, smaller, quality)
            if math.isfinite(over) and over > excess:
                worst, excess = smaller, over
        if worst is not None:
            warnings.append(_warning(larger, worst, quality))
    return warnings


def _warning(larger: Mapping[str, Any], smaller: Mapping[str, Any], quality: str) -> str:
    error = _combined_error(larger, smaller, quality)
    return (
        f"SUPERNET NOT SANE: {larger['name']} ({larger['parameters']} parameters) has {quality} "
        f"{larger['metrics'][quality]:.4g}, worse than the smaller {smaller['name']} "
        f"({smaller['parameters']} parameters) with {smaller['metrics'][quality]:.4g}; the "
        f"combined standard error is {error:.2g}. Train for more steps, or with a lower "
        "learning_rate, before trusting a search"
    )


def _combined_error(larger: Mapping[str, Any], smaller: Mapping[str, Any], quality: str) -> float:
    """Standard error of the difference; 0 where the metrics give none."""
    return math.hypot(
        larger["metrics"].get(f"{quality}_se", 0.0), smaller["metrics"].get(f"{quality}_se", 0.0)
    )
