import numpy as np
import pytest

from predictors.quality import QualityPredictor
from search_spaces import SearchSpace

SPACE = SearchSpace(
    {"depth": (2, 4), **{f"w{i}": (1, 2, 3, 4) for i in range(12)}},
    {f"w{i}": {"depth": (4,)} for i in range(6, 12)},
)


def canonical(genes):
    return np.where(SPACE.active_mask(genes), genes, 0)


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    return canonical(rng.integers(0, SPACE.cardinalities, size=(count, SPACE.dimensions)))


def error(genes):
    """Falls with every gene, by orders of magnitude."""
    weights = np.linspace(0.2, 1.0, SPACE.dimensions)
    return 1e-3 + 10 * np.exp(-genes @ weights / 2)


def test_it_predicts_what_it_has_not_seen():
    genes, others = drawn(80, 0), drawn(100, 1)
    predictor = QualityPredictor(SPACE)
    predictor.fit(genes, np.zeros((80, 0)), error(genes))
    predicted = predictor.mean(predictor.inputs(others, np.zeros((100, 0))))
    assert np.median(np.abs(predicted / error(others) - 1)) < 0.15


def test_its_samples_hold_the_truth_as_often_as_they_should():
    genes, others = drawn(60, 0), drawn(200, 1)
    noise = np.random.default_rng(3).normal(size=260) * 0.1
    predictor = QualityPredictor(SPACE)
    predictor.fit(genes, np.zeros((60, 0)), np.log(error(genes)) + noise[:60])
    inputs = predictor.inputs(others, np.zeros((200, 0)))
    samples = predictor.sample(inputs, 200, np.random.default_rng(0))
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    truth = np.log(error(others)) + noise[60:]
    assert 0.7 < ((low <= truth) & (truth <= high)).mean() <= 1.0


def test_what_is_known_of_each_helps():
    rng = np.random.default_rng(0)
    cost = rng.random((400, 1))
    genes = drawn(400, 1)
    values = np.sin(3 * cost[:, 0])
    errors = []
    for known in (cost, np.zeros((400, 0))):
        predictor = QualityPredictor(SPACE)
        predictor.fit(genes[:50], known[:50], values[:50])
        inputs = predictor.inputs(genes[50:], known[50:])
        errors.append(np.abs(predictor.mean(inputs) - values[50:]).mean())
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("value", [0.0, -3.5, 1e9])
def test_one_value_for_all_is_predicted_for_all(value):
    genes = drawn(10, 0)
    predictor = QualityPredictor(SPACE)
    predictor.fit(genes, np.zeros((10, 0)), np.full(10, value))
    inputs = predictor.inputs(drawn(5, 1), np.zeros((5, 0)))
    assert predictor.mean(inputs).tolist() == [value] * 5
    assert (predictor.sample(inputs, 3, np.random.default_rng(0)) == value).all()


def test_two_fits_of_one_history_are_identical():
    genes, others = drawn(60, 0), drawn(20, 1)
    predictions = []
    for _ in range(2):
        predictor = QualityPredictor(SPACE)
        for count in (20, 40, 60):
            predictor.fit(genes[:count], np.zeros((count, 0)), error(genes[:count]))
        predictions.append(predictor.mean(predictor.inputs(others, np.zeros((20, 0)))))
    assert predictions[0].tobytes() == predictions[1].tobytes()
