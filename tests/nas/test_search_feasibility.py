import time

import numpy as np
import pytest

from nas.search import (
    NothingFeasibleError,
    nearest,
    nearest_feasible,
    parse_constraints,
    require_feasible,
    search,
)
from search_spaces import SearchSpace
from search_spaces.errors import InfeasibleError, UserError

NAMES = ("error", "latency_ms", "macs")
LARGE = SearchSpace({f"g{i}": (1, 2, 3, 4) for i in range(60)})
SMALL = SearchSpace({f"g{i}": (1, 2, 3) for i in range(5)})


def cost(archs):
    """Latency: sum of the genes. MACs: sum of their squares."""
    genes = np.array([list(arch.values()) for arch in archs], dtype=float)
    return np.column_stack([genes.sum(axis=1), (genes**2).sum(axis=1)])


def bounds(*texts):
    return parse_constraints(texts, NAMES)


@pytest.mark.parametrize("space", [SMALL, LARGE])
def test_an_impossible_bound_is_told_at_once(space):
    lowest = float(len(space.names))
    begin = time.process_time()
    with pytest.raises(NothingFeasibleError) as error:
        nearest_feasible(space, cost, bounds("latency_ms <= 4"), names=NAMES[1:])
    assert time.process_time() - begin < 2
    assert isinstance(error.value, InfeasibleError)
    assert error.value.exit_code == 3
    assert error.value.nearest == space.smallest
    assert error.value.values == (lowest, lowest)
    message = str(error.value)
    assert "latency_ms <= 4" in message
    assert f"latency_ms {lowest:g}" in message
    assert space.smallest.to_json() in message
    assert "\n" not in message


def test_the_search_tells_it_before_any_evaluation():
    def evaluate(archs):
        raise AssertionError("evaluated")

    with pytest.raises(NothingFeasibleError, match="all 243 were checked"):
        search(SMALL, evaluate, cost, constraints=bounds("latency_ms > 15"), objective_names=NAMES)


@pytest.mark.parametrize("space", [SMALL, LARGE])
def test_bounds_that_only_exclude_each_other_name_both(space):
    high = len(space.names) * 2
    with pytest.raises(NothingFeasibleError, match=r"latency_ms >= .* and 'macs <= "):
        nearest_feasible(
            space,
            cost,
            bounds(f"latency_ms >= {high}", f"macs <= {high}"),
            names=NAMES[1:],
        )


def test_a_narrow_window_in_a_large_space_is_found():
    window = bounds("latency_ms >= 149", "latency_ms <= 149", "macs <= 420")
    arch = nearest_feasible(LARGE, cost, window, names=NAMES[1:])
    latency, macs = cost([arch])[0]
    assert latency == 149
    assert macs <= 420


def test_an_unknown_column_is_named():
    with pytest.raises(UserError, match="'error' is not an objective"):
        nearest_feasible(SMALL, cost, bounds("error <= 4"), names=NAMES[1:])


def test_a_bound_on_an_evaluated_objective_that_nothing_meets():
    result = search(
        SMALL,
        lambda archs: 100 - cost(archs)[:, :1],
        cost,
        budget=100,
        constraints=bounds("error <= 50"),
        objective_names=NAMES,
    )
    assert len(result.front) == 0
    best = nearest(result)
    assert result.values[best, 0] == result.values[:, 0].min()
    with pytest.raises(NothingFeasibleError, match=r"error <= 50.*100 were evaluated") as error:
        require_feasible(result)
    assert error.value.nearest == result.architectures[best]
    assert nearest(result, bounds("latency_ms <= 5")) == result.values[:, 1].argmin()


def test_feasibility_comes_first():
    result = search(
        LARGE,
        lambda archs: 300 - cost(archs)[:, :1],
        cost,
        budget=300,
        constraints=bounds("error <= 100"),
        objective_names=NAMES,
    )
    require_feasible(result)
    assert (result.values[result.front, 0] <= 100).all()
    late = result.values[200:, 0]
    assert (late <= 100).mean() > 0.5
