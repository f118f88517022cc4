"""Learning latency from plain features: what a device with a known cost law would show."""

import numpy as np
import pytest

from predictors.accuracy import kendall_tau, mape
from predictors.latency import LatencyPredictor
from search_spaces import UserError


def measured(count, seed=0, noise=0.02, outliers=0.0):
    """Depth, two widths and a column that says nothing; latency by layers and widths."""
    rng = np.random.default_rng(seed)
    depth = rng.integers(1, 7, count)
    embed, ffn = rng.choice([512, 640], count), rng.integers(512, 3073, count)
    idle = rng.normal(size=count)
    latency = 20 + depth * (30 + 0.02 * embed + 0.01 * ffn)
    latency = latency * np.exp(noise * rng.normal(size=count))
    latency[rng.random(count) < outliers] *= 1.3
    return np.stack([embed, depth, ffn, idle], axis=1).astype(float), latency


def test_it_finds_a_cost_law_from_few_rows():
    x, y = measured(40)
    unseen, truth = measured(500, seed=1, noise=0.0)
    mean, std = LatencyPredictor().fit(x, y).predict(unseen)
    assert mean.shape == std.shape == (500,)
    assert mape(mean, truth) < 0.015
    assert kendall_tau(mean, truth) > 0.97


def test_ten_rows_are_better_than_the_depth_alone():
    unseen, truth = measured(500, seed=1, noise=0.0)
    ours, line = [], []
    for seed in range(5):
        x, y = measured(10, seed=10 + seed)
        ours.append(mape(LatencyPredictor().fit(x, y).predict(unseen)[0], truth))
        slope = np.polynomial.Polynomial.fit(x[:, 1], y, 1)
        line.append(mape(slope(unseen[:, 1]), truth))
    assert np.mean(ours) < np.mean(line)


def test_rows_measured_while_the_device_was_slow_are_not_followed():
    x, y = measured(200, outliers=0.1)
    unseen, truth = measured(500, seed=1, noise=0.0)
    mean, _ = LatencyPredictor().fit(x, y).predict(unseen)
    assert mape(mean, truth) < 0.015  # their share of the mean alone would be 0.03


def test_ten_rows_of_which_some_were_slow_are_enough():
    unseen, truth = measured(500, seed=1, noise=0.0)
    errors = []
    for seed in range(5):
        x, y = measured(10, seed=20 + seed, outliers=0.15)
        errors.append(mape(LatencyPredictor().fit(x, y).predict(unseen)[0], truth))
    assert np.mean(errors) < 0.05


def test_wide_errors_are_not_taken_for_a_device_that_was_slow():
    unseen, truth = measured(500, seed=1, noise=0.0)
    ratios = []
    for seed in range(8):
        x, y = measured(25, seed=70 + seed, noise=0.1)
        ratios.append(np.mean(LatencyPredictor().fit(x, y).predict(unseen)[0] / truth))
    assert abs(np.mean(ratios) - 1) < 0.05


@pytest.mark.parametrize("rows", [10, 60])
def test_nine_of_ten_lie_within_the_interval(rows):
    covered = []
    for seed in range(20 if rows == 10 else 8):
        x, y = measured(rows, seed=seed, noise=0.05)
        unseen, truth = measured(500, seed=100 + seed, noise=0.05)
        mean, std = LatencyPredictor().fit(x, y).predict(unseen)
        covered.append(np.mean(np.abs(mean - truth) <= 1.645 * std))
    assert 0.85 < np.mean(covered) < 0.95


def test_features_without_a_number_of_layers():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (120, 3))
    y = 5 + x[:, 0] + 2 * x[:, 1] * x[:, 2]
    mean, _ = LatencyPredictor().fit(x[:80], y[:80]).predict(x[80:])
    assert mape(mean, y[80:]) < 0.02


def test_many_widths_that_all_matter():
    """No number of layers, eight widths, ten rows: a mean over the rows is 17 % off."""
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x = rng.choice([128.0, 256.0, 384.0, 512.0, 768.0], (210, 8))
        y = 2 + np.sum(1e-3 * x + 2e-6 * x**2, axis=1)
        mean, _ = LatencyPredictor().fit(x[:10], y[:10]).predict(x[10:])
        errors.append(mape(mean, y[10:]))
    assert np.mean(errors) < 0.08


def test_stages_with_a_number_of_layers_each():
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x = rng.integers(2, 5, (230, 5)).astype(float)
        y = 4 + x @ [2.0, 3.0, 4.0, 5.0, 6.0]
        mean, _ = LatencyPredictor().fit(x[:15], y[:15]).predict(x[15:])
        errors.append(mape(mean, y[15:]))
    assert np.mean(errors) < 0.005


def another_device(count, seed):
    """Four times the latency, widths matter more, some of it does not depend on depth."""
    x, _ = measured(count, seed=seed, noise=0.0)
    embed, depth, ffn, _ = x.T
    latency = 300 + depth * (0.15 * embed + 0.08 * ffn)
    return x, latency * np.exp(0.02 * np.random.default_rng(seed).normal(size=count))


def test_a_known_device_helps_and_a_useless_one_does_not_harm():
    known = LatencyPredictor().fit(*measured(400))
    rng = np.random.default_rng(0)
    x, y = measured(400)
    useless = LatencyPredictor().fit(x, rng.permutation(y))
    unseen, truth = another_device(500, seed=50)
    alone, helped, misled = (
        np.mean(
            [
                mape(
                    LatencyPredictor()
                    .fit(*another_device(10, seed=seed), source=source)
                    .predict(unseen)[0],
                    truth,
                )
                for seed in range(8)
            ]
        )
        for source in (None, known, useless)
    )
    assert helped < 0.85 * alone
    assert misled < 1.15 * alone


def test_what_was_carried_over_can_be_carried_on():
    first = LatencyPredictor().fit(*measured(100))
    x, y = another_device(30, seed=2)
    second = LatencyPredictor().fit(x, y, source=first)
    unseen, truth = another_device(200, seed=3)
    mean, std = LatencyPredictor().fit(x[:10], 2 * y[:10], source=second).predict(unseen)
    assert mape(mean, 2 * truth) < 0.06
    assert std.shape == (200,)


def test_a_source_must_have_learned_from_the_same_columns():
    x, y = measured(10)
    with pytest.raises(UserError, match="call fit first"):
        LatencyPredictor().fit(x, y, source=LatencyPredictor())
    with pytest.raises(UserError, match="3 columns, those learned from 4"):
        LatencyPredictor().fit(x[:, :3], y, source=LatencyPredictor().fit(x, y))


def test_units_do_not_matter():
    x, y = measured(30)
    mean, std = LatencyPredictor().fit(x, y).predict(x)
    others = LatencyPredictor().fit(x * [1, 1, 1e-6, 1e3], y * 1e-3).predict(x * [1, 1, 1e-6, 1e3])
    np.testing.assert_allclose(others[0], mean * 1e-3, rtol=1e-4)
    np.testing.assert_allclose(others[1], std * 1e-3, rtol=1e-4)


def test_constant_latency_and_constant_columns():
    x = np.ones((5, 3))
    mean, std = LatencyPredictor().fit(x, np.full(5, 2.0)).predict(np.ones((2, 3)))
    np.testing.assert_allclose(mean, 2.0, rtol=1e-3)
    assert std.max() < 0.01


@pytest.mark.parametrize(
    ("features", "latency", "message"),
    [
        ([1.0, 2.0, 3.0], [1, 2, 3], r"features of shape \(3,\) must be \(n, d\)"),
        ([[1.0], [2.0], [3.0]], [1, 2], r"latency of shape \(2,\) must be \(3,\)"),
        ([[1.0], [2.0]], [1, 2], "2 measured architectures are too few"),
        ([[1.0], [2.0], [3.0]], [1, 0, 2], "not above 0"),
        ([[1.0], [2.0], [np.nan]], [1, 1, 2], "not a finite number"),
    ],
)
def test_bad_input_is_named(features, latency, message):
    with pytest.raises(UserError, match=message):
        LatencyPredictor().fit(features, latency)


def test_predicting_needs_a_fit_and_the_same_columns():
    with pytest.raises(UserError, match="call fit first"):
        LatencyPredictor().predict([[1.0]])
    x, y = measured(10)
    with pytest.raises(UserError, match="3 columns, those learned from 4"):
        LatencyPredictor().fit(x, y).predict(x[:, :3])


def test_chosen_rows_say_more_than_random_ones():
    unseen, truth = measured(500, seed=1, noise=0.0)
    chosen, random = [], []
    for seed in range(8):
        x, y = measured(300, seed=40 + seed, noise=0.03)
        rows = LatencyPredictor.propose(x, 8)
        assert len(set(rows.tolist())) == 8
        for found, kept in ((chosen, rows), (random, np.arange(8))):
            found.append(mape(LatencyPredictor().fit(x[kept], y[kept]).predict(unseen)[0], truth))
    assert np.mean(chosen) < 0.8 * np.mean(random)


def test_with_a_known_device_other_rows_are_chosen():
    known = LatencyPredictor().fit(*measured(400))
    x, _ = another_device(300, seed=1)
    rows = LatencyPredictor.propose(x, 10, source=known)
    assert rows.tolist() != LatencyPredictor.propose(x, 10).tolist()
    unseen, truth = another_device(500, seed=50)
    chosen, random = [], []
    for seed in range(6):
        x, y = another_device(300, seed=60 + seed)
        for found, kept in (
            (chosen, LatencyPredictor.propose(x, 8, source=known)),
            (random, np.arange(8)),
        ):
            fitted = LatencyPredictor().fit(x[kept], y[kept], source=known)
            found.append(mape(fitted.predict(unseen)[0], truth))
    assert np.mean(chosen) < np.mean(random)


def test_units_do_not_matter_to_what_is_chosen():
    x, _ = measured(100)
    rows = LatencyPredictor.propose(x, 6)
    np.testing.assert_array_equal(LatencyPredictor.propose(x * [1, 1, 1e-6, 1e3], 6), rows)


def test_what_cannot_be_chosen():
    x, y = measured(10)
    with pytest.raises(UserError, match="11 architectures to measure cannot be chosen from 10"):
        LatencyPredictor.propose(x, 11)
    with pytest.raises(UserError, match="call fit first"):
        LatencyPredictor.propose(x, 5, source=LatencyPredictor())
    with pytest.raises(UserError, match="3 columns, those learned from 4"):
        LatencyPredictor.propose(x[:, :3], 5, source=LatencyPredictor().fit(x, y))
