"""Shares of genes: those of functions whose variance is known, and what cannot be told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.gene_importance import FEWEST, GeneImportance
from search_spaces import SearchSpace

SPACE = SearchSpace(
    {"depth": (1, 2, 3), "width": (8, 16), "ffn.0": (1, 2, 3, 4), "ffn.1": (1, 2, 3, 4)},
    {"ffn.1": {"depth": (2, 3)}},
)


SAMPLE = GeneImportance(SPACE, 0)


def genes_of(importance):
    return SPACE.encode_all(importance.architectures)


def additive(genes):
    """Variances 4 * 2/3, 1/4 and 0.09 * 5/4 of depth, width and ffn.0; nothing of ffn.1."""
    return 2.0 * genes[:, 0] + genes[:, 1] + 0.3 * genes[:, 2]


TRUTH = np.array([8 / 3, 1 / 4, 0.1125, 0.0]) / (8 / 3 + 1 / 4 + 0.1125)


def test_shares_of_a_sum_are_those_of_its_variance():
    found = SAMPLE.of_known(additive(genes_of(SAMPLE)))
    assert [share.share for share in found.genes.values()] == pytest.approx(TRUTH, abs=0.01)
    assert found.kinds["ffn"].share == pytest.approx(TRUTH[2] + TRUTH[3], abs=0.01)
    assert found.single.share == pytest.approx(1.0, abs=1e-5)
    assert found.r2 is None
    assert all(share.low == share.share == share.high for share in found.genes.values())


def test_a_combination_is_no_gene_by_itself():
    genes = genes_of(SAMPLE)
    found = SAMPLE.of_known((2.0 * genes[:, 1] - 1) * (genes[:, 2] - 1.5))
    assert found.single.share < 0.02


def test_a_gene_that_often_does_not_count_explains_less():
    found = SAMPLE.of_known(genes_of(SAMPLE)[:, 3].astype(float))
    # ffn.1 counts in two thirds: E[f | depth] is 0, 1.5, 1.5 and E[f | ffn.1] two thirds of it.
    values = np.array([0, 1, 2, 3])
    total = 2 / 3 * (values**2).mean() - (2 / 3 * 1.5) ** 2
    assert found.genes["ffn.1"].share == pytest.approx(4 / 9 * values.var() / total, abs=0.03)
    assert found.genes["depth"].share == pytest.approx(0.5 / total, abs=0.02)


def test_few_evaluations_give_intervals_that_hold_the_truth():
    rng = np.random.default_rng(1)
    genes = np.stack([SPACE.encode(SPACE.sample(rng)) for _ in range(40)])
    found = GeneImportance(SPACE, 0).of_evaluated(genes, additive(genes) + rng.normal(0, 0.2, 40))
    assert 0.9 < found.r2 <= 1.0
    for share, truth in zip(found.genes.values(), TRUTH, strict=True):
        assert share.low - 0.03 <= truth <= share.high + 0.03
        assert share.low <= share.share <= share.high
    assert found.genes["depth"].high > found.genes["depth"].low


def test_noise_is_known_by_what_is_left_out():
    rng = np.random.default_rng(2)
    genes = np.stack([SPACE.encode(SPACE.sample(rng)) for _ in range(60)])
    assert GeneImportance(SPACE, 0).of_evaluated(genes, rng.normal(size=60)).r2 < 0.3


def test_of_too_little_nothing_is_told():
    rng = np.random.default_rng(3)
    genes = np.stack([SPACE.encode(SPACE.sample(rng)) for _ in range(FEWEST)])
    importance = GeneImportance(SPACE, 0)
    assert importance.of_evaluated(genes[1:], additive(genes[1:])) is None
    assert importance.of_evaluated(genes, np.ones(FEWEST)) is None
    assert importance.of_evaluated(genes, additive(genes)) is not None


def test_a_space_without_a_choice_has_nothing_to_explain():
    importance = GeneImportance(SearchSpace({"a": (1,)}), 0)
    found = importance.of_known(np.ones(len(importance.architectures)))
    assert (found.genes, found.kinds, found.single.share) == ({}, {}, 0.0)


@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    scale=st.floats(0.1, 100),
    shift=st.floats(-100, 100),
)
def test_shares_do_not_depend_on_unit_or_origin(weights, scale, shift):
    values = genes_of(SAMPLE) @ np.round(weights, 2)
    found, other = SAMPLE.of_known(values), SAMPLE.of_known(scale * values + shift)
    for one, two in zip(found.genes.values(), other.genes.values(), strict=True):
        assert one.share == pytest.approx(two.share, abs=1e-6)
        assert 0.0 <= one.share <= 1.0
    assert found.single.share <= 1.0 + 1e-6


def test_the_same_evaluations_give_the_same_figures():
    rng = np.random.default_rng(1)
    genes = np.stack([SPACE.encode(SPACE.sample(rng)) for _ in range(30)])
    first, second = (GeneImportance(SPACE, 5).of_evaluated(genes, additive(genes)) for _ in "ab")
    assert first == second
