import numpy as np
import pytest

from predictors.gaussian_process import GaussianProcess, Inputs, Weights
from predictors.gene_features import GeneFeatures
from predictors.gene_kinds import GeneKinds
from search_spaces import SearchSpace

SPACE = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(10)})
FEATURES = GeneFeatures(SPACE)
KINDS = GeneKinds(SPACE, FEATURES.groups)


def sample(count, seed):
    genes = np.random.default_rng(seed).integers(0, 4, size=(count, 10))
    size = FEATURES.size(genes)
    features = FEATURES(genes)
    inputs = Inputs(
        features=features,
        context=(size - 0.5) / 0.1,
        sums=KINDS.sums(features),
        products=KINDS.products(features),
    )
    return genes, inputs


def fitted(inputs, targets, steps=4):
    process = GaussianProcess(FEATURES.groups)
    process.learn(inputs, targets, steps)
    process.condition(inputs, targets)
    return process


def test_a_sum_over_genes_is_learned_from_few():
    table = np.random.default_rng(1).normal(size=(10, 4))
    genes, inputs = sample(80, 2)
    targets = table[np.arange(10), genes].sum(axis=1)
    other, others = sample(200, 3)
    truth = (table[np.arange(10), other].sum(axis=1) - targets.mean()) / targets.std()
    process = fitted(inputs, (targets - targets.mean()) / targets.std())
    assert np.abs(process.mean(others) - truth).mean() < 0.15


def test_products_of_genes_are_learned():
    genes, inputs = sample(200, 2)
    other, others = sample(200, 3)

    def product(rows):
        return (rows[:, 0] - 1.5) * (rows[:, 1] - 1.5) / 1.25

    process = fitted(inputs, product(genes))
    assert np.corrcoef(process.mean(others), product(other))[0, 1] > 0.6


def test_steps_never_lower_the_likelihood_of_fixed_parts():
    genes, inputs = sample(60, 4)
    targets = genes[:, 0] - 1.5 + 0.3 * np.random.default_rng(0).normal(size=60)

    def likelihood(process):
        process.condition(inputs, targets)
        covariance = np.linalg.inv(process._inverse)
        return -targets @ process._solved - np.linalg.slogdet(covariance)[1]

    process = GaussianProcess(FEATURES.groups)
    before = likelihood(process)
    process.learn(inputs, targets, 3)
    assert likelihood(process) > before


def test_held_out_is_what_a_process_without_the_row_predicts():
    genes, inputs = sample(30, 5)
    targets = np.sin(genes.sum(axis=1))
    process = GaussianProcess(FEATURES.groups)
    process.condition(inputs, targets)
    weights = process.weights
    rest = np.arange(1, 30)
    # The scale of the features is that of the rows it knows; held out, it stays as it was.
    without = GaussianProcess(FEATURES.groups, weights)
    without.condition(inputs.take(rest), targets[rest])
    assert process.held_out()[0] == pytest.approx(
        without.mean(inputs.take(np.array([0])))[0], abs=0.02
    )
    assert np.isfinite(process.log_density()).all()


def test_doubt_is_small_where_something_is_known():
    genes, inputs = sample(60, 6)
    process = fitted(inputs, (genes.sum(axis=1) - 15) / 3.5)
    _, known = process.posterior(inputs)
    _, unknown = process.posterior(sample(60, 7)[1])
    assert np.diag(known).mean() < np.diag(unknown).mean()
    assert np.linalg.eigvalsh(unknown).min() > -1e-8


def test_slopes_are_the_derivatives_of_the_misfit():
    genes, inputs = sample(40, 1)
    targets = np.sin(genes.sum(axis=1) / 3)
    rng = np.random.default_rng(0)
    count = int(FEATURES.groups.max()) + 1
    logs = {
        "parts": np.log(rng.uniform(0.1, 0.5, size=7)),
        "groups": np.log(rng.uniform(0.3, 3.0, size=count)),
        "noise": np.log([0.1]),
        "reaches": np.log(rng.uniform(0.5, 2.0, size=2)),
    }

    def conditioned(logs):
        weights = Weights(
            parts=np.exp(logs["parts"]),
            groups=np.exp(logs["groups"]),
            noise=float(np.exp(logs["noise"][0])),
            even=0.0,
            reaches=tuple(np.exp(logs["reaches"])),
        )
        process = GaussianProcess(FEATURES.groups, weights)
        process.condition(inputs, targets)
        return process

    slopes = conditioned(logs).slopes()
    for name, values in logs.items():
        found = np.atleast_1d(getattr(slopes, name))
        for i in range(len(values)):
            step = np.where(np.arange(len(values)) == i, 1e-5, 0.0)
            up, down = (
                conditioned(logs | {name: values + sign * step}).misfit() for sign in (1, -1)
            )
            assert found[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)
