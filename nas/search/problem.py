"""What an algorithm may know about a search: the space, the cheap columns, the bounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas.search.constraints import Constraint, column_of, total_violation
from search_spaces import Architecture, SearchSpace
from search_spaces.errors import UserError

Floats = npt.NDArray[np.float64]
Genes = npt.NDArray[np.int64]
Evaluate = Callable[[Sequence[Architecture]], npt.ArrayLike]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A search problem, as an algorithm sees it: all but the expensive objectives."""

    space: SearchSpace
    """Where the architectures lie."""
    budget: int
    """Number of distinct architectures that will be evaluated at most."""
    cheap: Evaluate | None = None
    """Objectives known at no cost, `(n, k)`; the last k columns of the values."""
    cheap_width: int = 0
    """k; 0 without `cheap`."""
    constraints: tuple[Constraint, ...] = ()
    """All bounds. Integer objectives are columns of the values."""
    objective_names: tuple[str, ...] | None = None
    """Names of the columns of the values, if they have names."""

    @property
    def cheap_names(self) -> tuple[str, ...] | None:
        """Names of the cheap columns, if the objectives have names."""
        if self.objective_names is None:
            return None
        return self.objective_names[len(self.objective_names) - self.cheap_width :]

    @property
    def cheap_constraints(self) -> tuple[Constraint, ...]:
        """The bounds that can be checked before an evaluation, on columns of `cheap`'s output.

        Raises:
            UserError: A bound by index while the number of columns is not known.
        """
        found = []
        for constraint in self.constraints:
            column = self._cheap_column(constraint)
            if column is not None:
                named = isinstance(constraint.objective, str)
                found.append(constraint if named else replace(constraint, objective=column))
        return tuple(found)

    def _cheap_column(self, constraint: Constraint) -> int | None:
        """Column of `cheap` that a constraint bounds; None if it has to be evaluated."""
        objective = constraint.objective
        if self.objective_names is None and isinstance(objective, int):
            if self.cheap_width == 0:
                return None
            if objective >= 0:
                raise UserError(
                    f"bound '{constraint}': without objective_names it is not known how many "
                    "columns come before the cheap ones; give objective_names, or count from -1"
                )
            column = objective + self.cheap_width
        else:
            width = len(self.objective_names or ())
            column = column_of(constraint, width, self.objective_names) - width + self.cheap_width
        return column if column >= 0 else None

    def cheap_values(self, architectures: Sequence[Architecture]) -> Floats:
        """The cheap columns, shape `(n, k)`; `(n, 0)` without `cheap`.

        Raises:
            UserError: `cheap` gave another shape, NaN or infinity.
        """
        if self.cheap is None or len(architectures) == 0:
            return np.zeros((len(architectures), self.cheap_width))
        width = self.cheap_width or None
        return checked_values(self.cheap(architectures), architectures, width, "cheap")

    def cheap_violation(self, architectures: Sequence[Architecture]) -> Floats:
        """Sum of relative violations of the cheap bounds, shape `(n,)`; 0 is feasible."""
        bounds = self.cheap_constraints
        if not bounds:
            return np.zeros(len(architectures))
        return total_violation(self.cheap_values(architectures), bounds, self.cheap_names)

    def ceilings(self, width: int) -> Floats:
        """Upper bound of each of `width` objectives, shape `(width,)`; infinity without one."""
        result = np.full(width, np.inf)
        for constraint in self.constraints:
            if constraint.operator in ("<=", "<"):
                column = column_of(constraint, width, self.objective_names)
                result[column] = min(result[column], constraint.bound)
        return result

    def violation(self, values: Floats) -> Floats:
        """Sum of relative violations of all bounds, shape `(n,)`, for values `(n, m + k)`."""
        return total_violation(values, self.constraints, self.objective_names)


def checked_values(
    values: npt.ArrayLike, architectures: Sequence[Architecture], width: int | None, source: str
) -> Floats:
    """Objectives as a finite float64 array, shape `(n, width)`.

    Args:
        values: What a caller's function returned.
        architectures: The n architectures it was asked about.
        width: Number of columns that it must have; None takes any but zero.
        source: Name of the function, for the message.

    Raises:
        UserError: Another shape, not numbers, NaN or infinity.
    """
    count = len(architectures)
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{source} returned {type(values).__name__} that is no array of numbers ({error}); "
            f"return an array of shape ({count}, objectives)"
        ) from None
    wanted = f"({count}, {'objectives' if width is None else width})"
    if array.ndim != 2 or array.shape[0] != count or array.shape[1] == 0:
        raise UserError(
            f"{source} returned shape {array.shape} for {count} architectures; return {wanted}"
        )
    if width is not None and array.shape[1] != width:
        raise UserError(
            f"{source} returned shape {array.shape}, which is not {wanted}; "
            "every call returns the same objectives, one column for each"
        )
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise UserError(
            f"{source} returned {array[row, column]} as objective {column} of architecture "
            f"{architectures[row].to_json()}; objectives are finite numbers, so give a failed "
            "one a large value, or raise"
        )
    return array
