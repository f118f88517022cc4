import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.warps import warps

VALUES = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=3, max_size=30)


@given(VALUES.filter(lambda values: len(set(values)) > 1))
def test_every_scale_keeps_the_order_and_leads_back(values):
    values = np.array(values)
    for warp in warps(values):
        scaled = warp.forward(values)
        assert np.isfinite(scaled).all()
        order = np.argsort(values, kind="stable")
        assert (np.diff(scaled[order]) >= 0).all()
        np.testing.assert_allclose(
            warp.inverse(scaled), values, rtol=1e-6, atol=1e-6 * np.ptp(values)
        )
        assert np.isfinite(warp.inverse(np.array([-1e6, 1e6]))).all()


def test_scales_have_mean_0_and_deviation_1():
    values = np.random.default_rng(0).gamma(1.0, size=50)
    for warp in warps(values):
        scaled = warp.forward(values)
        assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1))


def test_the_slope_is_the_derivative():
    values, step = np.array([1.0, 2.0, 3.5, 9.0, 30.0]), 1e-6
    for warp in warps(values):
        slope = (warp.forward(values + step) - warp.forward(values - step)) / (2 * step)
        np.testing.assert_allclose(np.exp(warp.log_slope(values)), slope, rtol=1e-5)
