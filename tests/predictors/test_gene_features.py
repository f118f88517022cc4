import numpy as np

from predictors.gene_features import GeneFeatures
from search_spaces import SearchSpace

SPACE = SearchSpace(
    {"depth": (1, 2), "fixed": (7,), "width": (1, 2, 4, 8, 16), "kind": ("a", "b", "c")},
    {"kind": {"depth": (2,)}},
)


def everything(space):
    return space.encode_all(list(space))


def test_any_sum_over_choices_is_linear_in_the_features():
    genes = everything(SPACE)
    rng = np.random.default_rng(0)
    present = SPACE.active_mask(genes)
    tables = [rng.normal(size=count + 1) for count in SPACE.cardinalities]
    level = np.where(present, genes, SPACE.cardinalities)
    total = sum(table[level[:, gene]] for gene, table in enumerate(tables))
    features = np.column_stack([np.ones(len(genes)), GeneFeatures(SPACE)(genes)])
    fitted = features @ np.linalg.lstsq(features, total, rcond=None)[0]
    np.testing.assert_allclose(fitted, total, atol=1e-10)


def test_contrasts_of_a_gene_have_mean_0_and_do_not_overlap():
    space = SearchSpace({"width": (1, 2, 4, 8, 16)})
    features = GeneFeatures(space)(everything(space))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
    products = features.T @ features
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-10)


def test_a_trend_comes_first_and_follows_the_order():
    features = GeneFeatures(SearchSpace({"width": (1, 2, 4, 8)}))
    column = features(np.arange(4)[:, None])[:, 0]
    assert features.groups.tolist() == [0, 1, 1]
    assert (np.diff(column) > 0).all()


def test_a_gene_with_one_choice_has_no_feature():
    assert 2 not in set(GeneFeatures(SPACE).groups // 2 * 2)


def test_size_counts_what_is_there():
    size = GeneFeatures(SPACE).size
    ends = size(np.stack([SPACE.encode(SPACE.smallest), SPACE.encode(SPACE.largest)]))
    assert ends.shape == (2, 2)
    assert (ends[1] > ends[0]).all()
    assert GeneFeatures(SearchSpace({"a": (0, 1)})).size(np.array([[1]])).tolist() == [[1.0]]


def test_a_minor_gene_tells_less_than_another():
    space = SearchSpace({"width": (1, 2), "format": ("int8", "fp32")}, minor=["format"])
    features = GeneFeatures(space)
    width, minor = (np.ptp(column) for column in features(everything(space)).T)
    assert 0 < minor < width / 5
    # Nor is a network smaller for it
    assert len(np.unique(features.size(everything(space)))) == 2
    only = SearchSpace({"a": ("int8", "fp32"), "b": ("int8", "fp32")}, minor=["a", "b"])
    assert len(np.unique(GeneFeatures(only).size(everything(only)))) == 3
