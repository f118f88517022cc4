"""The best of a front within bounds: the rule of `nas export --best`, and of the dashboard."""

from collections.abc import Sequence

import numpy as np

from nas.search.constraints import Constraint, parse_constraints, total_violation
from nas.search.problem import Floats


def parse_bounds(text: str, objectives: Sequence[str]) -> tuple[Constraint, ...]:
    """Read bounds that commas part, such as `latency_ms <= 2, size_bytes <= 500000`.

    Raises:
        UserError: One is no bound, or on an objective that is not known.
    """
    return parse_constraints(text.split(","), objectives)


def best_within(
    values: Floats, names: Sequence[str], quality: Floats, bounds: Sequence[Constraint]
) -> int | None:
    """The subnet with the best quality within all bounds; of equal ones that with lower values.

    Args:
        values: What is bounded, shape `(n, k)`.
        names: Names of the k columns.
        quality: To be minimised, shape `(n,)`.
        bounds: By name.

    Returns:
        Its place among the n; None where nothing is within the bounds.
    """
    within = np.flatnonzero(total_violation(values, bounds, names) == 0)
    if len(within) == 0:
        return None
    return int(min(within, key=lambda index: (quality[index], *values[index])))
