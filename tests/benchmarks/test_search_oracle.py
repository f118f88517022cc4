import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.search_oracle import greedy_volumes
from nas.search import hypervolume
from nas.search.pareto import non_dominated

CORNER = {"ideal": np.zeros(3), "reference": np.full(3, 1.1)}


def volume(points):
    return hypervolume(points, **CORNER)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 15), st.integers(0, 99))
def test_each_point_is_the_one_that_adds_the_most(count, seed):
    points = np.random.default_rng(seed).random((count, 3))
    front = points[non_dominated(points)]
    reached = greedy_volumes(front, volume, len(front))
    taken = np.zeros((0, 3))
    for now in reached:
        most = max(volume(np.vstack([taken, point])) for point in front)
        assert now == pytest.approx(most)
        best = [p for p in front if volume(np.vstack([taken, p])) == pytest.approx(most)]
        taken = np.vstack([taken, best[0]])
    assert reached[-1] == pytest.approx(volume(front))


def test_no_more_points_are_taken_than_asked_for():
    front = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert len(greedy_volumes(front, volume, 2)) == 2
