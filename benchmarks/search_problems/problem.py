"""A problem of the search benchmark: space, objectives, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search import parse_constraints
from nas.search.constraints import total_violation
from nas.search.problem import Evaluate
from nas.search.result import feasible_front
from search_spaces import Architecture, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """One problem. A black box gives all columns; with `cheap` the last k are known at no cost."""

    name: str
    title: str
    """What it is, in a few words, for tables."""
    space: SearchSpace
    evaluate: Evaluate
    """The objectives that cost something, minimised, `(n, m)`."""
    names: tuple[str, ...]
    """Names of the m + k columns."""
    cheap: Evaluate | None = None
    """The last k columns; None where nothing is known without an evaluation."""
    constraints: tuple[str, ...] = ()
    """Bounds, by name."""
    enumerable: bool = False
    """Whether everything is evaluated at set-up, so that the true front is known."""
    reference_budget: int = 0
    """Evaluations of the search that the box comes from, where it is not enumerable."""

    def black_box(self, architectures: Sequence[Architecture]) -> Floats:
        """All objectives, shape `(n, m + k)`: evaluate's columns, then cheap's."""
        columns = [np.asarray(self.evaluate(architectures), dtype=np.float64)]
        if self.cheap is not None:
            columns.append(np.asarray(self.cheap(architectures), dtype=np.float64))
        return np.hstack(columns)

    def violation(self, values: Floats) -> Floats:
        """Sum of relative violations of the bounds, shape `(n,)`; 0 is feasible."""
        bounds = parse_constraints(self.constraints, self.names)
        return total_violation(values, bounds, self.names)

    def front(self, values: Floats) -> Floats:
        """The feasible rows of `values` that no other feasible row dominates."""
        if len(values) == 0:
            return values
        return values[feasible_front(values, self.violation(values))]
