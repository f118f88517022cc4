import numpy as np

from predictors.gaussian_process import GaussianProcess, Inputs
from predictors.gene_features import GeneFeatures
from predictors.gene_kinds import GeneKinds
from predictors.probable_weights import ProbableWeights
from search_spaces import SearchSpace

SPACE = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(8)})
FEATURES = GeneFeatures(SPACE)
KINDS = GeneKinds(SPACE, FEATURES.groups)


def sample(count, seed):
    genes = np.random.default_rng(seed).integers(0, 4, size=(count, 8))
    features = FEATURES(genes)
    size = (FEATURES.size(genes) - 0.5) / 0.1
    sums, products = KINDS.sums(features), KINDS.products(features)
    return genes, Inputs(features=features, context=size, sums=sums, products=products)


def conditioned(weights, inputs, targets):
    process = GaussianProcess(FEATURES.groups, weights)
    process.condition(inputs, targets)
    return process


def test_a_gene_that_matters_weighs_more_than_one_that_does_not():
    genes, inputs = sample(80, 0)
    targets = np.sin(2.0 * genes[:, 0]) + 0.5 * genes[:, 1] - 0.75
    weights = ProbableWeights(FEATURES.groups).learn(inputs, targets, 30, shared=False)
    by_gene = weights.groups.reshape(8, 2).sum(axis=1)
    assert by_gene[:2].min() > 3 * by_gene[2:].max()


def test_more_steps_fit_better():
    genes, inputs = sample(60, 1)
    targets = (genes.sum(axis=1) - 12) / 3
    probable = ProbableWeights(FEATURES.groups)
    misfits = [
        conditioned(probable.learn(inputs, targets, steps, shared=True), inputs, targets).misfit()
        for steps in (1, 5, 10)
    ]
    assert misfits[0] > misfits[1] > misfits[2]


def test_layers_share_only_where_they_are_told_to():
    genes, inputs = sample(40, 2)
    targets = (genes.sum(axis=1) - 12) / 3
    probable = ProbableWeights(FEATURES.groups)
    assert not probable.learn(inputs, targets, 3, shared=False).shares
    assert probable.learn(inputs, targets, 3, shared=True).shares
