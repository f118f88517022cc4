"""What was evaluated in a search."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nas.search.problem import Floats, Problem, checked_values
from nas.search.result import SearchResult, feasible_front
from search_spaces import Architecture


class Record:
    """The full evaluations so far, those known before the search first."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known = 0
        self.architectures: list[Architecture] = []
        self._seen: set[Architecture] = set()
        self._rows: list[Floats] = []
        self._batches: list[int] = []
        self._expected: list[float | None] = []
        names = problem.objective_names
        self._width = None if names is None else len(names) - problem.cheap_width

    @property
    def evaluated(self) -> int:
        """Number of evaluations of this search."""
        return len(self.architectures) - self._known

    @property
    def values(self) -> Floats:
        """All columns of all so far, shape `(n, m + k)`."""
        width = (self._width or 0) + self._problem.cheap_width
        return np.vstack(self._rows) if self._rows else np.zeros((0, width))

    def add_known(self, known: Mapping[Architecture, Sequence[float]]) -> None:
        """Begin with what is known.

        Raises:
            UserError: An architecture is not of the space, or the values are no finite numbers.
        """
        space = self._problem.space
        canonical = [space.architecture(arch) for arch in known]
        first = {arch: row for row, arch in reversed(list(enumerate(canonical)))}
        rows = sorted(first.values())
        costly = [list(values) for values in known.values()]
        self._add([canonical[row] for row in rows], [costly[row] for row in rows], "known")
        self._known = len(rows)
        self._seen.update(self.architectures)

    def open_batch(self, asked: Sequence[Architecture], gain: float | None) -> None:
        """Note what is asked about, and what it is expected to add."""
        if len(set(asked)) != len(asked) or not self._seen.isdisjoint(asked):
            raise RuntimeError("the algorithm asked about an architecture twice")
        self._seen.update(asked)
        self._expected.append(gain)

    def add(self, evaluated: Sequence[Architecture], costly: npt.ArrayLike) -> Floats:
        """Check and keep values of some of a batch; all columns, shape `(n, m + k)`."""
        return self._add(evaluated, costly, "evaluate")

    def close_batch(self) -> None:
        """Note where the batch ends."""
        self._batches.append(len(self.architectures))

    def _add(self, asked: Sequence[Architecture], costly: npt.ArrayLike, source: str) -> Floats:
        evaluated = checked_values(costly, asked, self._width, source)
        self._width = evaluated.shape[1]
        values = np.hstack([evaluated, self._problem.cheap_values(asked)])
        self.architectures += asked
        self._rows.append(values)
        return values

    def result(self, spent: float, left_behind: Sequence[Architecture] = ()) -> SearchResult:
        """All so far; see `SearchResult.spent` and `SearchResult.left_behind`."""
        values = self.values
        front = feasible_front(values, self._problem.violation(values))
        values.flags.writeable = False
        front.flags.writeable = False
        return SearchResult(
            architectures=tuple(self.architectures),
            values=values,
            front=front,
            objective_names=self._problem.objective_names,
            constraints=self._problem.constraints,
            known=self._known,
            batches=tuple(self._batches),
            expected_gains=tuple(self._expected),
            spent=spent,
            left_behind=tuple(left_behind),
        )
