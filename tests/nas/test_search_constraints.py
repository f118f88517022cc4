import numpy as np
import pytest

from nas.search import Constraint, parse_constraint, parse_constraints
from nas.search.constraints import total_violation
from nas.search.problem import Problem
from search_spaces import SearchSpace
from search_spaces.errors import UserError

NAMES = ("error", "latency_ms", "macs")


@pytest.mark.parametrize(
    ("text", "operator", "bound"),
    [
        ("latency_ms <= 5", "<=", 5.0),
        ("latency_ms<5.5", "<", 5.5),
        ("  latency_ms >= 1e-3 ", ">=", 0.001),
        ("latency_ms > -2", ">", -2.0),
    ],
)
def test_bounds_are_read(text: str, operator: str, bound: float) -> None:
    constraint = parse_constraint(text, NAMES)
    assert constraint == Constraint(objective="latency_ms", operator=operator, bound=bound)
    assert parse_constraint(str(constraint), NAMES) == constraint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency_ms", "is not 'objective operator number'"),
        ("<= 5", "is not 'objective operator number'"),
        ("latency <= 5", "did you mean latency_ms?"),
        ("weight <= 5", "known are error, latency_ms, macs"),
        ("latency_ms = 5", "'=' is not one of <=, <, >=, >"),
        ("latency_ms =< 5", "'=<' is not one of"),
        ("latency_ms <= 5ms", "'5ms' is not a number; give it without a unit"),
        ("latency_ms <=", "'' is not a number"),
        ("latency_ms <= nan", "is not a finite number"),
        ("5 >= latency_ms", "'5' is not an objective"),
        ("latency_ms <= 5 <= 6", "'5 <= 6' is not a number"),
    ],
)
def test_wrong_bounds_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_constraint(text, NAMES)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_violation_is_relative_and_strict_bounds_leave_out_the_bound() -> None:
    values = np.array([[0.1, 4.0, 1e9], [0.1, 5.0, 1e9], [0.1, 10.0, 2e9]])
    bounds = parse_constraints(["latency_ms <= 5", "macs <= 1e9"], NAMES)
    np.testing.assert_allclose(total_violation(values, bounds, NAMES), [0, 0, 2])
    strict = total_violation(values, parse_constraints(["latency_ms < 5"], NAMES), NAMES)
    assert strict[0] == 0
    assert strict[1] > 0
    at_least = parse_constraints(["latency_ms >= 5"], NAMES)
    np.testing.assert_allclose(total_violation(values, at_least, NAMES), [0.2, 0, 0])


def test_columns_may_be_said_by_index() -> None:
    values = np.array([[1.0, 2.0]])
    last = Constraint(objective=-1, operator="<=", bound=1)
    assert total_violation(values, [last])[0] == 1
    with pytest.raises(UserError, match="no column 2"):
        total_violation(values, [Constraint(objective=2, operator="<=", bound=1)])
    with pytest.raises(UserError, match="give objective_names"):
        total_violation(values, [Constraint(objective="macs", operator="<=", bound=1)])
    with pytest.raises(UserError, match="operator '=='"):
        Constraint(objective=0, operator="==", bound=1)  # type: ignore[arg-type]


def test_ceilings_are_the_lowest_upper_bounds():
    bounds = [
        Constraint(objective=0, operator="<=", bound=5.0),
        Constraint(objective=0, operator="<", bound=3.0),
        Constraint(objective=1, operator=">=", bound=1.0),
    ]
    space = SearchSpace({"a": (0, 1)})
    problem = Problem(space=space, budget=1, constraints=tuple(bounds), objective_names=("x", "y"))
    assert problem.ceilings(2).tolist() == [3.0, np.inf]
