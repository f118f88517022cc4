"""Finding an architecture within the cheap bounds, or showing how close one can get."""

from collections.abc import Sequence

import numpy as np

from nas.search.candidates import ENUMERABLE
from nas.search.constraints import Constraint, column_of
from nas.search.enumeration import enumerate_genes
from nas.search.problem import Evaluate, Floats, Genes, Problem
from nas.search.result import SearchResult
from nas.search.variation import mutate, single_changes, stratified_levels, tilted_genes
from search_spaces import Architecture, SearchSpace
from search_spaces.errors import InfeasibleError

_STARTS = 64
_DESCENTS = 30
_PAIRS = 200
_GENERATIONS = 40
_GENERATIONS_IN_VAIN = 4
_LISTED_AT_ONCE = 2_000


class NothingFeasibleError(InfeasibleError):
    """No architecture meets the bounds; carries the one that comes closest.

    Args:
        message: One line for the user.
        nearest: The architecture with the smallest violation.
        values: Its objectives (those that the bounds were checked on).
    """

    def __init__(self, message: str, nearest: Architecture, values: tuple[float, ...]) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.values = values


def nearest_feasible(
    space: SearchSpace,
    cheap: Evaluate,
    constraints: Sequence[Constraint],
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Architecture:
    """An architecture within all bounds.

    Goes through a space of up to 20 000 architectures; in a larger one, tries both ends and all
    sizes, then descends from the best by changes of one gene and of two, then recombines. At most
    a few thousand calls' worth of `cheap`, so that an impossible bound is told at once.

    Args:
        space: Where to look.
        cheap: Objectives known at no cost, `(n, k)`.
        constraints: Bounds on columns of `cheap`, by index or by name.
        seed: Seed of the search.
        names: Names of the k columns.

    Returns:
        A feasible architecture.

    Raises:
        NothingFeasibleError: None was found; names the bounds and the nearest architecture.
        UserError: A bound on an unknown column, or a wrong output of `cheap`.
    """
    width = Problem(space=space, budget=1, cheap=cheap).cheap_values([space.smallest]).shape[1]
    problem = Problem(
        space=space,
        budget=1,
        cheap=cheap,
        cheap_width=width,
        constraints=tuple(constraints),
        objective_names=tuple(names) if names else tuple(f"objective {i}" for i in range(width)),
    )
    descent = _Descent(problem)
    descent.run(np.random.default_rng(seed))
    if descent.violation == 0:
        return descent.nearest
    how = f"all {space.size} were checked" if descent.exhausted else f"{descent.tried} were tried"
    raise _error(
        tuple(constraints),
        descent.nearest,
        problem.cheap_values([descent.nearest])[0],
        problem.objective_names,
        how,
    )


def nearest(result: SearchResult, constraints: Sequence[Constraint] | None = None) -> int:
    """Index of the evaluated architecture that comes closest to meeting the bounds.

    Args:
        result: A search's result with at least one evaluation.
        constraints: Bounds on its objectives; None takes those of the search.

    Returns:
        Index into `result.architectures`; the first of equally close ones.
    """
    bounds = result.constraints if constraints is None else tuple(constraints)
    return int(np.argmin(result.violation(bounds)))


def require_feasible(result: SearchResult) -> None:
    """Check that a search found something within its bounds.

    Raises:
        NothingFeasibleError: It did not; names the bounds and the nearest architecture.
    """
    if len(result.front) == 0 and len(result.architectures) > 0:
        index = nearest(result)
        raise _error(
            result.constraints,
            result.architectures[index],
            result.values[index],
            result.objective_names,
            f"{len(result.architectures)} were evaluated",
        )


def _error(
    constraints: Sequence[Constraint],
    architecture: Architecture,
    values: Floats,
    names: Sequence[str] | None,
    how: str,
) -> NothingFeasibleError:
    columns = [column_of(bound, len(values), names) for bound in constraints]
    broken = [
        (bound, column, float(values[column]))
        for bound, column in zip(constraints, columns, strict=True)
        if bound.violation(values[column : column + 1])[0] > 0
    ]
    reached = ", ".join(
        f"{names[column] if names else f'objective {column}'} {value:.6g}"
        for _, column, value in broken
    )
    bounds = " and ".join(f"'{bound}'" for bound in constraints)
    loosen = " or ".join(f"'{bound}'" for bound, _, _ in broken)
    return NothingFeasibleError(
        f"no architecture meets {bounds} ({how}); the nearest has {reached}: "
        f"{architecture.to_json()}; loosen {loosen}",
        architecture,
        tuple(float(value) for value in values),
    )


class _Descent:
    """Minimises the violation; stops at the first architecture without any."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._space = problem.space
        self._genes = np.zeros((0, problem.space.dimensions), dtype=np.int64)
        self._violations = np.zeros(0)
        self.tried = 0
        self.exhausted = False

    @property
    def violation(self) -> float:
        """Smallest violation so far."""
        return float(self._violations[0])

    @property
    def nearest(self) -> Architecture:
        """Architecture of the smallest violation so far."""
        return self._space.decode(self._genes[0])

    def run(self, rng: np.random.Generator) -> None:
        """Look until something is feasible or the trials are spent."""
        space = self._space
        ends = [space.encode(space.smallest), space.encode(space.largest)]
        if self._try(np.array(ends)):
            return
        if space.size <= ENUMERABLE:
            rows = enumerate_genes(space)
            for start in range(0, len(rows), _LISTED_AT_ONCE):
                if self._try(rows[start : start + _LISTED_AT_ONCE]):
                    return
            self.exhausted = True
            return
        if self._try(tilted_genes(stratified_levels(_STARTS, rng), space, rng)):
            return
        if self._descend():
            return
        before = self.violation
        pairs = mutate(np.repeat(self._genes[:1], _PAIRS, axis=0), space, rng, changes=2.0)
        if self._try(pairs) or self._evolve(rng):
            return
        if self.violation < before:
            self._descend()

    def _evolve(self, rng: np.random.Generator) -> bool:
        """Recombine the best, until some generations have found nothing better."""
        in_vain = 0
        for _ in range(_GENERATIONS):
            before = self.violation
            first, second = self._genes[rng.integers(0, len(self._genes), size=(2, _STARTS))]
            children = np.where(rng.random(first.shape) < 0.5, first, second)
            if self._try(mutate(children, self._space, rng)):
                return True
            in_vain = 0 if self.violation < before else in_vain + 1
            if in_vain == _GENERATIONS_IN_VAIN:
                break
        return False

    def _descend(self) -> bool:
        """Best single-gene change, until none is better."""
        for _ in range(_DESCENTS):
            before = self.violation
            if self._try(single_changes(self._genes[0], self._space)):
                return True
            if self.violation >= before:
                break
        return False

    def _try(self, rows: Genes) -> bool:
        """Remember the best of `rows`; True if one is feasible."""
        if len(rows):
            violations = self._problem.cheap_violation(self._space.decode_all(rows))
            canonical = np.array([self._space.canonical(genes) for genes in rows])
            self.tried += len(rows)
            every = np.concatenate([self._genes, canonical])
            _, first = np.unique(every, axis=0, return_index=True)
            order = np.sort(first)
            merged = np.concatenate([self._violations, violations])[order]
            best = np.argsort(merged, kind="stable")[:_STARTS]
            self._genes, self._violations = every[order][best], merged[best]
        return self.violation == 0
