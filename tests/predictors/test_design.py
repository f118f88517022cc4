"""Which rows to measure: an experimental design."""

import itertools

import numpy as np
import pytest

from predictors import design
from predictors.design import choose_rows
from search_spaces import UserError


def variance(rows, chosen, precision):
    """Mean variance of the predictions for all rows."""
    measured = rows[list(chosen)]
    covariance = np.linalg.inv(np.diag(precision) + measured.T @ measured)
    return np.einsum("np,pq,nq->", rows, covariance, rows) / len(rows)


def expected_variance(rows, chosen, precision):
    """The same where each measurement may be lost, but no two are."""
    without = [[c for c in chosen if c != one] for one in chosen]
    weights = np.array([1 - design.LOST, *[design.LOST] * len(chosen)])
    found = [variance(rows, kept, precision) for kept in [chosen, *without]]
    return float(weights @ found / weights.sum())


def line(count, seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, count)
    return np.stack([np.ones(count), x], axis=1)


def test_a_line_is_measured_at_its_ends():
    rows = line(200)
    chosen = choose_rows(rows, 4, precision=np.full(2, 1e-6))
    assert len(set(chosen.tolist())) == 4
    assert (np.diff(chosen) > 0).all()
    assert sorted(np.abs(rows[chosen, 1]))[0] > 0.95
    assert abs(np.sign(rows[chosen, 1]).sum()) == 0


def test_it_is_the_best_of_all_designs_of_a_small_pool():
    rng = np.random.default_rng(1)
    for _ in range(5):
        rows, precision = rng.normal(size=(9, 3)), rng.uniform(0.1, 2.0, 3)
        best = min(
            expected_variance(rows, chosen, precision)
            for chosen in itertools.combinations(range(9), 4)
        )
        chosen = choose_rows(rows, 4, precision=precision)
        # By exchanging one at a time, not by trying all
        assert expected_variance(rows, chosen, precision) < 1.03 * best


def test_chosen_rows_are_worth_several_times_as_many_random_ones():
    rng = np.random.default_rng(2)
    rows, precision = np.hstack([line(500), rng.normal(size=(500, 6))]), np.full(8, 0.1)
    chosen = variance(rows, choose_rows(rows, 12, precision=precision), precision)
    random = [variance(rows, rng.permutation(500)[:24], precision) for _ in range(20)]
    assert chosen < np.mean(random)


def test_what_is_known_already_is_not_asked_for():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 4))
    known = np.array([1e6, 1e6, 0.01, 0.01])
    chosen = choose_rows(rows, 6, precision=known)
    assert np.abs(rows[chosen][:, 2:]).mean() > 1.4 * np.abs(rows[chosen][:, :2]).mean()


def test_no_single_measurement_carries_the_design():
    """Where any may be lost, each direction is measured more than once."""
    rows = np.vstack([np.eye(3), np.eye(3) * 0.9, np.full((5, 3), 0.01)])
    chosen = choose_rows(rows, 6, precision=np.full(3, 1e-3))
    assert chosen.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [0, 6])
def test_a_pool_that_is_too_small(count):
    with pytest.raises(UserError, match=rf"{count} architectures to measure .* from 5"):
        choose_rows(line(5), count, precision=np.ones(2))
