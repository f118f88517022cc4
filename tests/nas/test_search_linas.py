import numpy as np
from sklearn.svm import SVR

from nas.search.linas import survival
from nas.search.pareto import non_dominated
from nas.search.ridge_or_svm import OneHot, RidgeOrSvm, _kernel_predictor
from search_spaces import SearchSpace

SPACE = SearchSpace(
    {"depth": (1, 2), **{f"w{i}": (1, 2, 4) for i in range(8)}},
    {f"w{i}": {"depth": tuple(range(i // 4 + 1, 3))} for i in range(8)},
)


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    found = rng.integers(0, SPACE.cardinalities, size=(count, SPACE.dimensions))
    return np.where(SPACE.active_mask(found), found, 0)


def test_genes_that_do_not_count_have_no_column_set():
    genes = rows(200)
    features = OneHot(SPACE, genes)(genes)
    assert features.shape == (200, 2 + 8 * 3)
    shallow = genes[:, 0] == 0
    assert (features[shallow].sum(axis=1) == 1 + 4).all()
    assert (features[~shallow].sum(axis=1) == 1 + 8).all()


def test_choices_that_all_or_none_have_are_left_out():
    genes = rows(50)
    genes[:, 1] = 2
    assert OneHot(SPACE, genes)(genes).shape[1] == 2 + 7 * 3


def test_it_predicts_a_function_of_the_genes():
    weights = np.random.default_rng(1).random(SPACE.dimensions)

    def target(genes):
        return np.exp(-(genes @ weights) / 4) + 1e-3

    genes, unseen = rows(150), rows(100, seed=1)
    features = OneHot(SPACE, genes)
    predict = RidgeOrSvm().fit(features(genes), target(genes))
    errors = predict(features(unseen)) - target(unseen)
    assert np.abs(errors).mean() < 0.15 * target(unseen).std()


def test_equal_targets_and_single_rows_are_predicted_as_they_are():
    genes = rows(20)
    features = OneHot(SPACE, genes)(genes)
    np.testing.assert_allclose(RidgeOrSvm().fit(features, np.full(20, 3.0))(features), 3.0)
    np.testing.assert_allclose(RidgeOrSvm().fit(features[:1], np.ones(1))(features), 1.0)


def test_the_matrix_product_predicts_what_the_machine_predicts():
    features = OneHot(SPACE, rows(60))(rows(60))
    model = SVR(kernel="rbf", gamma="auto", epsilon=0.0, C=10.0).fit(
        features, features @ np.arange(features.shape[1])
    )
    np.testing.assert_allclose(_kernel_predictor(model)(features), model.predict(features))


def test_survivors_are_feasible_first_then_the_best_ranks():
    rng = np.random.default_rng(0)
    values, violation = rng.random((40, 2)), np.where(rng.random(40) < 0.5, 0.0, rng.random(40))
    order, keys = survival(values, violation, 25)
    assert len(order) == 25
    assert (np.diff(keys[0]) >= 0).all()
    feasible = np.flatnonzero(violation == 0)
    first = feasible[non_dominated(values[feasible])]
    assert set(first.tolist()) <= set(order[: len(feasible)].tolist())
    few = survival(values, violation, 3)[0]
    assert (violation[few] == 0).all()
