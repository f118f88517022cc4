import numpy as np
import pytest

from predictors.gene_features import GeneFeatures
from predictors.gene_kinds import GeneKinds
from predictors.quality import QualityPredictor
from search_spaces import SearchSpace

LAYERS = 12
SPACE = SearchSpace(
    {
        "depth": (1, 2),
        **{
            name: choices
            for i in range(LAYERS)
            for name, choices in ((f"heads.{i}", (1, 2, 4)), (f"kind.{i}", ("a", "b", "c")))
        },
        "ffn": (1, 2),
    }
)


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, SPACE.cardinalities, size=(count, SPACE.dimensions))


def kinds_of(space):
    features = GeneFeatures(space)
    return features, GeneKinds(space, features.groups)


def by_layer(genes):
    return genes[:, 1:-1].reshape(len(genes), LAYERS, 2)


def fit(features, values):
    """Largest error of a linear fit."""
    columns = np.column_stack([np.ones(len(features)), features])
    return np.abs(columns @ np.linalg.lstsq(columns, values, rcond=None)[0] - values).max()


def test_what_every_layer_does_alike_is_linear_in_the_sums():
    genes = drawn(300, 0)
    features, kinds = kinds_of(SPACE)
    sums = kinds.sums(features(genes))
    tables = np.random.default_rng(1).normal(size=(2, 3))
    heads, kind = by_layer(genes).transpose(2, 0, 1)
    alike = tables[0][heads].sum(axis=1) + tables[1][kind].sum(axis=1)
    assert sums.shape == (300, 4)
    assert fit(sums, alike) < 1e-9
    assert fit(sums, alike + tables[0][heads[:, 0]]) > 0.1


def test_what_two_kinds_do_together_is_linear_in_sums_and_products():
    genes = drawn(300, 0)
    features, kinds = kinds_of(SPACE)
    known = features(genes)
    table = np.random.default_rng(1).normal(size=(3, 3))
    heads, kind = by_layer(genes).transpose(2, 0, 1)
    together = table[heads, kind].sum(axis=1)
    products = kinds.products(known)
    assert products.shape == (300, 4)
    assert fit(np.hstack([kinds.sums(known), products]), together) < 1e-9
    assert fit(kinds.sums(known), together) > 0.1


@pytest.mark.parametrize(
    "choices",
    [
        {"heads": (1, 2), "ffn": (1, 2)},
        {"heads.0": (1, 2), "ffn.0": (1, 2)},
        {"heads.0": (1, 2), "heads.1": (1, 2, 4)},
        {"heads.0": (1,), "heads.1": (1,), "ffn": (1, 2)},
    ],
    ids=["no numbers", "one layer", "other choices", "nothing to choose"],
)
def test_a_space_that_does_not_repeat_itself_has_no_sums(choices):
    space = SearchSpace(choices)
    features, kinds = kinds_of(space)
    genes = space.encode_all(list(space))
    assert kinds.sums(features(genes)).shape == (len(genes), 0)
    assert kinds.products(features(genes)).shape == (len(genes), 0)


def test_layers_that_may_be_absent_are_of_another_kind():
    space = SearchSpace(
        {"depth": (1, 2, 3), **{f"w.{i}": (1, 2, 3) for i in range(3)}},
        {"w.1": {"depth": (2, 3)}, "w.2": {"depth": (3,)}},
    )
    features, kinds = kinds_of(space)
    genes = space.encode_all(list(space))
    # Two choices' contrasts and one for not being there.
    assert kinds.sums(features(genes)).shape == (len(genes), 3)


def test_a_cost_that_layers_share_is_learned_from_fewer_evaluations_than_there_are_genes():
    table = np.random.default_rng(3).normal(size=(3, 3))
    genes = drawn(220, 0)
    heads, kind = by_layer(genes).transpose(2, 0, 1)
    cost = table[heads, kind].sum(axis=1)
    # The same space, but its names say nothing of kinds and layers.
    nameless = SearchSpace(
        {chr(ord("a") + i): SPACE.choices[name] for i, name in enumerate(SPACE.names)}
    )
    errors = []
    for space in (SPACE, nameless):
        predictor = QualityPredictor(space)
        predictor.fit(genes[:20], np.zeros((20, 0)), cost[:20])
        inputs = predictor.inputs(genes[20:], np.zeros((200, 0)))
        errors.append(np.abs(predictor.mean(inputs) - cost[20:]).mean())
    assert errors[0] < 0.5 * errors[1]


def test_layers_that_have_nothing_in_common_are_learned_as_if_names_said_nothing():
    space = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(10)})
    nameless = SearchSpace({chr(ord("a") + i): (0, 1, 2, 3) for i in range(10)})
    table = np.random.default_rng(1).normal(size=(10, 4))
    genes = np.random.default_rng(0).integers(0, 4, size=(60, 10))
    values = table[np.arange(10), genes].sum(axis=1)
    predictions = []
    for each in (space, nameless):
        predictor = QualityPredictor(each)
        predictor.fit(genes[:50], np.zeros((50, 0)), values[:50])
        predictions.append(predictor.mean(predictor.inputs(genes[50:], np.zeros((10, 0)))))
    assert predictions[0].tolist() == predictions[1].tolist()
