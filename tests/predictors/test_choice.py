"""Of several predictors, the one that is least wrong on what it has not seen."""

import numpy as np
import pytest

from latency.noise import Noise
from predictors.accuracy import mape
from predictors.choice import choose
from predictors.learned import LearnedPredictor
from predictors.table import TablePredictor
from search_spaces import UserError
from tests.predictors.simulated_device import (
    SPACE,
    draw,
    measured_table,
    measured_whole,
    random_device,
)


def test_a_good_table_is_taken_where_subnets_are_few():
    rng = np.random.default_rng(0)
    law, architectures = random_device(rng), draw(48, rng)
    latency = measured_whole(law, architectures, 0.01, rng)
    table = TablePredictor(SPACE, measured_table(law, 0.01, rng), "latency")
    few = {"table": table, "ridge": LearnedPredictor(SPACE)}
    choice = choose(few, architectures[:8], latency[:8])
    assert choice.name == "table"
    assert choice.predictor is table
    assert list(choice.errors) == ["table", "ridge"]
    assert choice.errors["table"] == pytest.approx(np.abs(table.held_out).mean())
    mean, _ = choice.predictor.predict(architectures[8:])
    np.testing.assert_array_equal(mean, table.predict(architectures[8:])[0])
    assert mape(mean, latency[8:]) < 0.03


def test_a_table_of_another_device_is_left_for_what_subnets_say():
    rng = np.random.default_rng(5)
    law, architectures = random_device(rng), draw(60, rng)
    latency = measured_whole(law, architectures, 0.01, rng)
    wrong = TablePredictor(SPACE, measured_table(random_device(rng), 0.01, rng), "latency")
    candidates = {"table": wrong} | {
        name: LearnedPredictor(SPACE, name) for name in ("ridge", "boosting")
    }
    choice = choose(candidates, architectures[:40], latency[:40])
    assert choice.name == "ridge"
    assert mape(choice.predictor.predict(architectures[40:])[0], latency[40:]) < 0.04


def test_intervals_of_the_best_of_many_hold_what_they_say():
    """Six equal candidates on noise: the luckiest looks better than it is."""
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law, architectures = random_device(rng), draw(60, rng)
        latency = measured_whole(law, architectures, 0.03, rng)
        candidates = {
            str(i): TablePredictor(SPACE, measured_table(law, 0.03, rng), "latency")
            for i in range(6)
        }
        noise = Noise(own=0.03)
        choice = choose(candidates, architectures[:20], latency[:20], noise=noise)
        mean, std = choice.predictor.predict(architectures[20:])
        covered.append(np.mean(np.abs(mean - latency[20:]) <= 1.645 * std))
    assert 0.88 <= np.mean(covered) <= 0.95


def test_those_that_need_more_are_passed_over():
    rng = np.random.default_rng(0)
    law, architectures = random_device(rng), draw(3, rng)
    latency = measured_whole(law, architectures, 0.01, rng)
    table = TablePredictor(SPACE, measured_table(law, 0.01, rng), "latency")
    learned = LearnedPredictor(SPACE)
    choice = choose({"ridge": learned, "table": table}, architectures, latency)
    assert choice.name == "table"
    with pytest.raises(UserError, match="3 whole subnets are too few to learn from"):
        choose({"ridge": learned}, architectures, latency)
    with pytest.raises(UserError, match="there is no subnet to choose by"):
        choose({"table": table}, [], [])


class Known:
    """A predictor of which nothing counts but its errors on what it had not seen."""

    def __init__(self, held_out):
        self.held_out = np.array(held_out)

    def fit(self, architectures, latency_ms, *, noise=None):
        return self

    def widen(self, factor):
        pass


def test_the_simpler_one_is_left_for_what_is_surely_better():
    rng = np.random.default_rng(0)
    architectures, latency = draw(12, rng), np.ones(12)
    simple = 0.01 * (1 + rng.random(12))
    simple[5] = 0.08
    lucky = 1.02 * simple
    lucky[5] = 0.01  # a fifth better on average, by one subnet of twelve
    assert lucky.mean() < 0.8 * simple.mean()
    for other, name in ((lucky, "simple"), (0.8 * simple, "other")):
        candidates = {"simple": Known(simple), "other": Known(other)}
        assert choose(candidates, architectures, latency).name == name
