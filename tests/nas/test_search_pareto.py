import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.search import hypervolume, non_dominated, select_front

# Few distinct values, so that ties and duplicates are common.
POINTS = st.integers(1, 4).flatmap(
    lambda m: st.integers(0, 40).flatmap(
        lambda n: arrays(np.float64, (n, m), elements=st.integers(0, 5).map(float))
    )
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@settings(deadline=None)
@given(POINTS)
def test_front_holds_no_dominated_point_and_nothing_dominates_it(points: np.ndarray) -> None:
    front = non_dominated(points)
    assert front.tolist() == sorted(set(front.tolist()))
    for i, point in enumerate(points):
        assert (i in front) == (not any(dominates(other, point) for other in points))


@settings(deadline=None)
@given(POINTS, st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order(points: np.ndarray, random: object) -> None:
    order = np.random.default_rng(len(points)).permutation(len(points))
    shuffled = {int(order[i]) for i in non_dominated(points[order])}
    assert shuffled == set(non_dominated(points).tolist())


def test_front_refuses_what_it_cannot_order() -> None:
    with pytest.raises(ValueError, match="NaN"):
        non_dominated([[0.0, np.nan]])
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        non_dominated([0.0, 1.0])


def test_hypervolume_of_known_boxes() -> None:
    box = {"ideal": [0, 0], "reference": [2, 4]}
    assert hypervolume([[0, 0]], **box) == 1
    assert hypervolume([[1, 2]], **box) == 0.25
    assert hypervolume([[1, 0], [0, 2], [1, 3]], **box) == pytest.approx(0.75)
    assert hypervolume([[2, 0], [5, 5]], **box) == 0
    assert hypervolume(np.zeros((0, 2)), **box) == 0
    assert hypervolume([[3.0], [1.0]], ideal=[0], reference=[4]) == 0.75
    cube = {"ideal": [0, 0, 0], "reference": [1, 1, 1]}
    assert hypervolume([[0.5, 0.5, 0.5], [0, 0.5, 0.5]], **cube) == pytest.approx(0.25)


def test_the_staircase_equals_the_library() -> None:
    from pymoo.indicators.hv import HV

    points = np.random.default_rng(0).random((50, 2))
    ours = hypervolume(points, ideal=[0, 0], reference=[1, 1])
    assert ours == pytest.approx(float(HV(ref_point=np.ones(2)).do(points)))


@settings(deadline=None, max_examples=50)
@given(POINTS, st.integers(1, 10))
def test_selection_is_part_of_the_front_and_keeps_its_ends(points: np.ndarray, count: int) -> None:
    front = non_dominated(points)
    chosen = select_front(points, front, count)
    distinct = len(np.unique(points[front], axis=0))
    assert len(chosen) == min(count, distinct)
    assert set(chosen.tolist()) <= set(front.tolist())
    if len(front) and count >= points.shape[1]:
        np.testing.assert_array_equal(points[chosen].min(axis=0), points[front].min(axis=0))
    np.testing.assert_array_equal(chosen, select_front(points, front, count))


def test_selection_spreads_over_the_front() -> None:
    x = np.concatenate([np.linspace(0, 0.02, 50), [0.25, 0.5, 0.75, 1.0]])
    values = np.column_stack([x, 1 - x])
    chosen = select_front(values, non_dominated(values), 5)
    np.testing.assert_allclose(x[chosen], [0, 0.25, 0.5, 0.75, 1.0])


def test_selection_of_nothing() -> None:
    assert select_front(np.zeros((3, 2)), [], 4).tolist() == []
    with pytest.raises(ValueError, match="count 0"):
        select_front(np.zeros((3, 2)), [0], 0)
