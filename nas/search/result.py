"""What a search found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas.search.constraints import Constraint, total_violation
from nas.search.pareto import Indices, hypervolume, non_dominated
from nas.search.problem import Floats
from search_spaces import Architecture

Stop = Literal["budget", "time", "gain", "space"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """All evaluations of a search, in order, and which of them are on the front.

    Nothing in it is predicted: every row of `values` was evaluated, here or earlier.
    """

    architectures: tuple[Architecture, ...]
    """The n evaluated architectures, distinct: those known before, then in order of evaluation."""
    values: Floats
    """Objectives, minimised, shape `(n, m + k)`: evaluate's columns, then cheap's; read-only."""
    front: Indices
    """Indices of the non-dominated ones among those within all bounds, ascending; read-only."""
    objective_names: tuple[str, ...] | None = None
    """Names of the columns, if the caller gave any."""
    constraints: tuple[Constraint, ...] = ()
    """The bounds of the search."""
    known: int = 0
    """How many of them, the first ones, were known before the search."""
    batches: tuple[int, ...] = ()
    """Number of architectures after each batch, known ones included."""
    expected_gains: tuple[float | None, ...] = ()
    """What each batch was expected to add, before it was evaluated: a share of the hypervolume of
    what was evaluated before; None where the algorithm does not say."""
    spent: float = 0.0
    """What the search cost, in evaluations; more than those only with lower fidelities."""
    left_behind: tuple[Architecture, ...] = ()
    """What was seen at a lower fidelity only, and is not in `architectures`."""
    stopped: Stop = "budget"
    """Why it ended: `budget`; `time`; `gain`, when little was expected; `space`, when nothing was
    left to ask about."""

    def violation(self, constraints: Sequence[Constraint] | None = None) -> Floats:
        """Sum of relative violations of the bounds, shape `(n,)`; 0 means feasible."""
        bounds = self.constraints if constraints is None else constraints
        return total_violation(self.values, bounds, self.objective_names)

    def hypervolume(self, count: int | None = None) -> float:
        """Share of the box of all values that the first `count` dominate; None takes all.

        The box spans the best and the worst of every objective in this result, so the figures
        show the progress of one search; to compare searches use `nas.search.hypervolume` with
        one box.
        """
        if len(self.values) == 0:
            return 0.0
        values = self.values[:count][self.violation()[:count] == 0]
        ideal, reference = self.values.min(axis=0), self.values.max(axis=0)
        return hypervolume(values, ideal=ideal, reference=reference)

    def hypervolume_history(self) -> Floats:
        """`hypervolume` after each batch, shape `(b,)`."""
        return np.array([self.hypervolume(count) for count in self.batches])


def feasible_front(values: Floats, violation: Floats) -> Indices:
    """Indices of the points without violation that no other such point dominates, ascending."""
    feasible = np.flatnonzero(violation == 0)
    return feasible[non_dominated(values[feasible])].astype(np.int64)
