"""A new device from another one's table and at most ten whole subnets."""

import numpy as np
import pytest

from predictors.accuracy import mape
from predictors.learned import LearnedPredictor
from predictors.table import TablePredictor
from predictors.transfer import TransferPredictor
from search_spaces import UserError, sample_by_cost, sample_widely
from tests.predictors.simulated_device import (
    SPACE,
    draw,
    measured_table,
    measured_whole,
    random_device,
)


def source(law, rng):
    """A known device: its table, corrected."""
    architectures = draw(8, rng)
    predictor = TablePredictor(SPACE, measured_table(law, 0.01, rng), "latency")
    return predictor.fit(architectures, measured_whole(law, architectures, 0.01, rng))


def spread(predictor, count, rng):
    """Subnets of all latencies."""
    return sample_by_cost(SPACE, lambda arch: predictor.predict([arch])[0][0], count, rng)


def trial(seed, subnets, noise=0.01):
    """A predictor fitted on a new device, and what 40 unseen subnets take there."""
    rng = np.random.default_rng(seed)
    known, new = random_device(rng), random_device(rng)
    other = source(known, rng)
    fitted = spread(other, subnets, rng)
    latency = measured_whole(new, fitted, noise, rng)
    unseen = [arch for arch in draw(50, rng) if arch not in fitted][:40]
    truth = measured_whole(new, unseen, noise, rng)
    return other, fitted, latency, unseen, truth


def test_a_device_that_is_only_slower_takes_two_subnets():
    rng = np.random.default_rng(0)
    law = random_device(rng)
    other = source(law, rng)
    fitted, unseen = (
        spread(other, 2, rng),
        draw(40, rng),
    )
    latency = 7 * measured_whole(law, fitted, 0.005, rng)
    mean, std = TransferPredictor(other).fit(fitted, latency).predict(unseen)
    assert mape(mean, 7 * measured_whole(law, unseen, 0.005, rng)) < 0.03
    assert (std > 0).all()


def test_ten_subnets_say_more_with_another_device_than_alone():
    errors = {"transfer": [], "alone": [], "scaled": []}
    for seed in range(20):
        other, fitted, latency, unseen, truth = trial(seed, 10)
        scale = np.median(latency / other.predict(fitted)[0])
        errors["scaled"].append(mape(scale * other.predict(unseen)[0], truth))
        for name, predictor in (
            ("transfer", TransferPredictor(other)),
            ("alone", LearnedPredictor(SPACE)),
        ):
            mean, _ = predictor.fit(fitted, latency).predict(unseen)
            errors[name].append(mape(mean, truth))
    assert np.mean(errors["transfer"]) < 0.7 * np.mean(errors["alone"])
    assert np.mean(errors["transfer"]) < 0.5 * np.mean(errors["scaled"])


@pytest.mark.parametrize("subnets", [6, 10])
def test_nine_of_ten_unseen_subnets_are_within_the_interval(subnets):
    covered = []
    for seed in range(40):
        other, fitted, latency, unseen, truth = trial(seed, subnets)
        mean, std = TransferPredictor(other).fit(fitted, latency).predict(unseen)
        covered.append(np.mean(np.abs(mean - truth) <= 1.645 * std))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_what_cannot_be_fitted():
    other = source(random_device(np.random.default_rng(0)), np.random.default_rng(0))
    with pytest.raises(UserError, match="has not learned anything yet"):
        TransferPredictor(other).predict([SPACE.largest])
    with pytest.raises(UserError, match="1 whole subnets are too few"):
        TransferPredictor(other).fit([SPACE.largest], [1.0])


def test_chosen_subnets_say_more_than_ones_of_all_sizes():
    errors = {"chosen": [], "spread": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        known, new = random_device(rng), random_device(rng)
        other = source(known, rng)
        pool, unseen = sample_widely(SPACE, 500, rng), draw(60, rng)
        for name, fitted in (
            ("chosen", TransferPredictor(other).propose(pool, 8)),
            ("spread", spread(other, 8, rng)),
        ):
            assert len(set(fitted)) == 8
            latency = measured_whole(new, fitted, 0.01, rng)
            mean, _ = TransferPredictor(other).fit(fitted, latency).predict(unseen)
            errors[name].append(mape(mean, measured_whole(new, unseen, 0.0, rng)))
    assert np.mean(errors["chosen"]) < 0.9 * np.mean(errors["spread"])
