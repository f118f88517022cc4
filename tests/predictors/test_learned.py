"""Latency learned from whole subnets alone."""

import time

import numpy as np
import pytest

from latency.noise import Noise
from predictors.accuracy import mape
from predictors.learned import LearnedPredictor
from predictors.regressors import REGRESSORS
from search_spaces import UserError, sample_by_cost, sample_widely
from tests.predictors.simulated_device import SPACE, draw, measured_whole, random_device


@pytest.mark.parametrize(
    ("regressor", "most"),
    [
        ("ridge", 0.03),
        ("svr", 0.06),
        ("boosting", 0.2),
        ("gaussian-process", 0.04),
        ("ensemble", 0.04),
    ],
)
def test_each_regressor_learns(regressor, most):
    rng = np.random.default_rng(0)
    law, architectures = random_device(rng), draw(100, rng)
    latency = measured_whole(law, architectures, 0.01, rng)
    predictor = LearnedPredictor(SPACE, regressor)
    assert predictor.fit(architectures[:50], latency[:50]) is predictor
    mean, std = predictor.predict(architectures[50:])
    assert mean.shape == std.shape == (50,)
    assert mape(mean, latency[50:]) < most
    covered = np.abs(mean - latency[50:]) <= 1.645 * std
    assert covered.mean() >= 0.7
    assert predictor.held_out.shape == (50,)
    empty, _ = predictor.predict([])
    assert empty.shape == (0,)


def test_every_regressor_is_tried():
    assert set(REGRESSORS) == {"ridge", "svr", "boosting", "gaussian-process", "ensemble"}


@pytest.mark.parametrize(("subnets", "noise"), [(12, 0.02), (25, 0.01), (50, 0.03)])
def test_nine_of_ten_unseen_subnets_are_within_the_interval(subnets, noise):
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law, architectures = random_device(rng), draw(subnets + 40, rng)
        latency = measured_whole(law, architectures, noise, rng)
        predictor = LearnedPredictor(SPACE).fit(architectures[:subnets], latency[:subnets])
        mean, std = predictor.predict(architectures[subnets:])
        covered.append(np.mean(np.abs(mean - latency[subnets:]) <= 1.645 * std))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_what_sessions_share_widens_the_interval():
    rng = np.random.default_rng(0)
    architectures = draw(20, rng)
    latency = measured_whole(random_device(rng), architectures, 0.01, rng)
    alone = LearnedPredictor(SPACE).fit(architectures, latency).std
    shared = LearnedPredictor(SPACE).fit(architectures, latency, noise=Noise(shared=0.05)).std
    assert shared**2 == pytest.approx(alone**2 + 2 * 0.05**2)


def test_ten_thousand_architectures_are_predicted_at_once():
    rng = np.random.default_rng(0)
    fitted = draw(50, rng)
    latency = measured_whole(random_device(rng), fitted, 0.01, rng)
    predictor = LearnedPredictor(SPACE, "ensemble").fit(fitted, latency)
    architectures = [SPACE.sample(rng) for _ in range(10_000)]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        predictor.predict(architectures)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.4  # 0.2 on an idle core


def test_what_cannot_be_learned():
    with pytest.raises(UserError, match="regressor 'forest' is not one of"):
        LearnedPredictor(SPACE, "forest")
    with pytest.raises(UserError, match="has not learned anything yet"):
        LearnedPredictor(SPACE).predict([SPACE.largest])
    with pytest.raises(UserError, match="4 whole subnets are too few to learn from"):
        LearnedPredictor(SPACE).fit(draw(4, np.random.default_rng(0)), [1.0] * 4)
    with pytest.raises(UserError, match=r"latency -1\.0 ms"):
        LearnedPredictor(SPACE).fit(draw(6, np.random.default_rng(0)), [1.0] * 5 + [-1.0])


def test_chosen_subnets_say_more_than_ones_of_all_sizes():
    errors = {"chosen": [], "spread": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        law, unseen = random_device(rng), draw(60, rng)
        spread = sample_by_cost(SPACE, lambda arch: float(SPACE.cost(arch).macs), 14, rng)
        chosen = LearnedPredictor(SPACE).propose(sample_widely(SPACE, 500, rng), 14)
        for name, fitted in (("chosen", chosen), ("spread", spread)):
            predictor = LearnedPredictor(SPACE)
            predictor.fit(fitted, measured_whole(law, fitted, 0.01, rng))
            truth = measured_whole(law, unseen, 0.0, rng)
            errors[name].append(mape(predictor.predict(unseen)[0], truth))
    assert np.mean(errors["chosen"]) < 0.9 * np.mean(errors["spread"])


@pytest.mark.parametrize("regressor", list(REGRESSORS))
def test_restored_it_predicts_the_same_in_a_fraction_of_the_time(regressor, monkeypatch):
    rng = np.random.default_rng(0)
    fitted, unseen = draw(25, rng), draw(20, rng)
    latency = measured_whole(random_device(rng), fitted, 0.01, rng)
    first = LearnedPredictor(SPACE, regressor).fit(fitted, latency)
    learned = []

    def counted(terms, values, learn=REGRESSORS[regressor]):
        learned.append(len(values))
        return learn(terms, values)

    monkeypatch.setitem(REGRESSORS, regressor, counted)
    again = LearnedPredictor(SPACE, regressor).restore(fitted, latency, first.std)
    assert learned == [25]  # once, and not again for each fold
    for one, other in zip(first.predict(unseen), again.predict(unseen), strict=True):
        np.testing.assert_array_equal(one, other)
