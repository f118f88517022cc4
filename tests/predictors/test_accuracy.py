import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from predictors.accuracy import kendall_tau, mape

small = st.integers(0, 8).map(float)


def test_mape_is_a_fraction_of_the_measured_value():
    assert mape([1.1, 1.8], [1.0, 2.0]) == pytest.approx(0.1)


def test_tau_of_equal_and_reversed_order():
    assert kendall_tau([1.0, 2.0, 3.0], [10.0, 20.0, 21.0]) == 1.0
    assert kendall_tau([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(small, small), min_size=2, max_size=20))
def test_tau_equals_scipy(pairs):
    p, m = np.array(pairs).T
    ours = kendall_tau(p, m)
    if len(set(p)) == 1 or len(set(m)) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(kendalltau(p, m).statistic)


def test_one_pair_has_no_order():
    assert math.isnan(kendall_tau([1.0], [1.0]))


@pytest.mark.parametrize(
    ("predicted", "measured", "message"),
    [
        ([], [], "no pair to compare"),
        ([1.0], [1.0, 2.0], "not of one shape"),
        ([1.0], [0.0], "not > 0; leave failed measurements out"),
        ([1.0], [math.nan], "not finite"),
    ],
)
def test_bad_pairs_are_named(predicted, measured, message):
    with pytest.raises(ValueError, match=message):
        mape(predicted, measured)
