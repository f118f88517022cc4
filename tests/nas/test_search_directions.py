import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.directions import Box, draw_directions, lengths
from nas.search.pareto import hypervolume


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), st.integers(1, 12), st.integers(0, 99))
def test_the_mean_over_directions_is_the_hypervolume_but_for_a_constant(objectives, count, seed):
    rng = np.random.default_rng(seed)
    points = rng.random((count, objectives))
    box = Box(ideal=np.zeros(objectives), reference=np.ones(objectives))
    directions = draw_directions(20_000, objectives, rng)

    def mean(values):
        reach = lengths(box.gains(values), directions).max(axis=0)
        return (np.maximum(reach, 0) ** objectives).mean()

    share = mean(points) / mean(np.zeros((1, objectives)))
    wanted = hypervolume(points, ideal=box.ideal, reference=box.reference)
    assert share == pytest.approx(wanted, abs=0.03)


def test_directions_are_unit_vectors_with_positive_components():
    rng = np.random.default_rng(0)
    for objectives in (1, 2, 3, 5):
        drawn = draw_directions(50, objectives, rng)
        assert drawn.shape[1] == objectives
        assert (drawn > 0).all()
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)


def test_a_box_holds_the_front_and_a_little_more():
    values = np.array([[0.0, 10.0], [1.0, 0.0], [5.0, 50.0]])
    box = Box.around(values)
    assert box.ideal.tolist() == [0, 0]
    assert box.reference.tolist() == [1.1, 11.0]


@pytest.mark.parametrize("values", [[[3.0, 4.0]], [[3.0, 4.0], [5.0, 4.0]], [[0.0, 0.0]]])
def test_a_box_around_one_point_has_sides(values):
    box = Box.around(np.array(values))
    assert (box.reference > box.ideal).all()


SEEN = np.array([[0.5, 0.1], [0.1, 0.4], [0.6, 0.9], [0.7, 0.2]])
EVERYTHING = np.ones(4, dtype=bool)


@pytest.mark.parametrize(
    ("ceiling", "reached"),
    [(0.3, 0.43), (0.8, 0.8), (5.0, 0.9), (np.inf, 0.43)],
)
def test_a_box_within_bounds_reaches_out_to_them(ceiling, reached):
    """The front ends at 0.4; what is better may lie anywhere up to the bound."""
    box = Box.within(SEEN, EVERYTHING, np.array([np.inf, ceiling]))
    assert box.reference == pytest.approx([0.54, reached])
    assert box.ideal.tolist() == [0.1, 0.1]


def test_a_box_within_bounds_is_around_what_meets_them():
    meets = np.array([False, True, True, True])
    box = Box.within(SEEN, meets, np.full(2, np.inf))
    assert box.ideal.tolist() == [0.1, 0.2]
    none = np.zeros(4, dtype=bool)
    around = Box.around(SEEN)
    for other in (
        Box.within(SEEN, none, np.zeros(2)),
        Box.within(SEEN, EVERYTHING, np.full(2, np.inf)),
    ):
        assert (other.ideal == around.ideal).all()
        assert (other.reference == around.reference).all()


def test_a_failure_under_a_loose_bound_does_not_stretch_the_box():
    values = np.vstack([SEEN, [[1e9, 0.95]]])
    box = Box.within(values, np.ones(5, dtype=bool), np.array([1e10, np.inf]))
    assert box.reference[0] < 100
