"""Bounds on objectives, such as `latency_ms <= 5`: parsing, and how far a value is off."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError

Operator = Literal["<=", "<", ">=", ">"]

_OPERATORS: tuple[Operator, ...] = get_args(Operator)
_BOUND = re.compile(r"\s*(?P<objective>[^<>=!]+?)\s*(?P<operator>[<>=!]+)\s*(?P<number>.*?)\s*")


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """One bound on one objective."""

    objective: int | str
    """Name of the objective, or its column in the values (negative: counted from the last)."""
    operator: Operator
    """`<=`, `<`, `>=` or `>`; the strict ones leave out the bound itself."""
    bound: float
    """The bound, in the unit of the objective."""

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS:
            raise UserError(
                f"operator {self.operator!r} of a bound is not one of {', '.join(_OPERATORS)}; "
                "write it as 'latency_ms <= 5'"
            )
        if not math.isfinite(self.bound):
            raise UserError(
                f"bound {self.bound} on {self.objective} is not a finite number; "
                "give a number or leave the bound out"
            )

    def __str__(self) -> str:
        name = f"objective {self.objective}" if isinstance(self.objective, int) else self.objective
        return f"{name} {self.operator} {self.bound:g}"

    def violation(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How far `values` are beyond the bound, relative to the bound's size.

        Args:
            values: Values of the objective, any shape.

        Returns:
            Same shape: 0 where the bound holds, positive elsewhere. Relative, so that bounds in
            milliseconds and in MACs can be added up.
        """
        scale = abs(self.bound) or 1.0
        beyond = values - self.bound if self.operator in ("<=", "<") else self.bound - values
        broken = beyond >= 0 if self.operator in ("<", ">") else beyond > 0
        # A strict bound is broken at distance 0 too; that has to count as more than nothing.
        smallest = float(np.finfo(np.float64).tiny)
        return np.where(broken, np.maximum(beyond / scale, smallest), 0.0)


def parse_constraint(text: str, objectives: Sequence[str]) -> Constraint:
    """Read a bound such as `latency_ms <= 5`.

    Args:
        text: Name of an objective, one of `<=`, `<`, `>=`, `>`, and a plain number.
        objectives: Names that may be bounded.

    Returns:
        The constraint, by name.

    Raises:
        UserError: Not such a text, or an objective that is not known.
    """
    match = _BOUND.fullmatch(text)
    if match is None:
        raise UserError(
            f"bound {text!r} is not 'objective operator number'; write it as 'latency_ms <= 5' "
            f"(objectives: {', '.join(objectives)})"
        )
    name = match["objective"]
    if name not in objectives:
        close = difflib.get_close_matches(name, objectives, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(objectives)}"
        raise UserError(f"bound {text!r}: {name!r} is not an objective of this search; {hint}")
    operator = match["operator"]
    if operator not in _OPERATORS:
        raise UserError(
            f"bound {text!r}: {operator!r} is not one of {', '.join(_OPERATORS)}; "
            f"write it as '{name} <= 5'"
        )
    try:
        bound = float(match["number"])
    except ValueError:
        raise UserError(
            f"bound {text!r}: {match['number']!r} is not a number; give it without a unit, "
            f"as in '{name} {operator} 5'"
        ) from None
    return Constraint(objective=name, operator=_OPERATORS[_OPERATORS.index(operator)], bound=bound)


def parse_constraints(texts: Sequence[str], objectives: Sequence[str]) -> tuple[Constraint, ...]:
    """Read several bounds; see `parse_constraint`."""
    return tuple(parse_constraint(text, objectives) for text in texts)


def total_violation(
    values: npt.NDArray[np.float64],
    constraints: Sequence[Constraint],
    names: Sequence[str] | None = None,
) -> npt.NDArray[np.float64]:
    """Sum of the relative violations of all constraints.

    Args:
        values: Objectives, shape `(n, m)`.
        constraints: The bounds.
        names: Names of the m columns, needed by constraints that say a name.

    Returns:
        Violation, shape `(n,)`; 0 means feasible.

    Raises:
        UserError: A constraint on a column or name that does not exist.
    """
    total = np.zeros(len(values))
    for constraint in constraints:
        column = column_of(constraint, values.shape[1], names)
        total += constraint.violation(values[:, column])
    return total


def column_of(constraint: Constraint, width: int, names: Sequence[str] | None) -> int:
    """Column that a constraint bounds, in `[0, width)`.

    Raises:
        UserError: There is no such column or name.
    """
    objective = constraint.objective
    if isinstance(objective, str):
        if names is None:
            raise UserError(
                f"bound '{constraint}' says a name, but the objectives have none; "
                "give objective_names, or bound a column by its index"
            )
        if objective not in names:
            raise UserError(
                f"bound '{constraint}': {objective!r} is not an objective of this search; "
                f"known are {', '.join(names)}"
            )
        return list(names).index(objective)
    if not -width <= objective < width:
        raise UserError(
            f"bound '{constraint}': there is no column {objective}; "
            f"there are {width}, counted from 0 (or from -1 backwards)"
        )
    return objective % width
