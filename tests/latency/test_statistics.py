import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latency.statistics import log_interval, session_ratio, t_quantile

RATIO = st.floats(1e-3, 1e3)


@settings(deadline=None)
@given(st.lists(RATIO, min_size=2, max_size=20))
def test_interval_is_scipys(ratios: list[float]) -> None:
    logs = np.log(ratios)
    error = stats.sem(logs)
    interval = log_interval(ratios)
    assert interval.log_mean == pytest.approx(logs.mean(), abs=1e-9)
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(ratios) - 1, loc=logs.mean(), scale=error)
        assert interval.half_width == pytest.approx((high - low) / 2, rel=1e-6)
        assert interval.log_mean - interval.half_width == pytest.approx(low, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.lists(RATIO, min_size=2, max_size=9), st.floats(0.1, 10))
def test_scale_shifts_the_mean_only(ratios: list[float], scale: float) -> None:
    one, other = log_interval(ratios), log_interval([scale * ratio for ratio in ratios])
    assert other.log_mean == pytest.approx(one.log_mean + math.log(scale), abs=1e-9)
    assert other.half_width == pytest.approx(one.half_width, abs=1e-9)


def test_quantile() -> None:
    assert t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert t_quantile(4) == pytest.approx(2.7764, abs=1e-4)


def test_one_session_has_no_interval() -> None:
    assert log_interval([2.0]).half_width == math.inf
    assert log_interval([2.0]).ratio == pytest.approx(2.0)


def test_round_ratios_cancel_the_state_of_the_machine() -> None:
    anchor = [1.0, 3.0, 1.2, 0.9, 2.0]
    assert session_ratio([2.5 * a for a in anchor], anchor) == pytest.approx(2.5)
    assert session_ratio([2.5, 7.5, 3.0, 90.0, 5.0], anchor) == pytest.approx(2.5)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 candidate rounds, 1 anchor rounds"):
        session_ratio([1.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="positive"):
        log_interval([1.0, 0.0])
