"""The contract of `nas.search.evolution.Selection`, run on every implementation."""

from functools import partial

import numpy as np
import pytest

from nas.search.age_moea2 import GeometrySelection, ranks_and_scores
from nas.search.ctaea import TwoArchiveSelection
from nas.search.evolution import random_pairs, winners
from nas.search.nsga2 import RankAndCrowdingSelection
from nas.search.nsga3 import ReferenceDirectionSelection, reference_directions
from nas.search.pareto import non_dominated

SELECTIONS = {
    "age-moea2": GeometrySelection,
    "ctaea": TwoArchiveSelection,
    "nsga2": RankAndCrowdingSelection,
    "nsga3": partial(ReferenceDirectionSelection, unified=False),
    "unsga3": partial(ReferenceDirectionSelection, unified=True),
}


def run(name, values, violation, *, size=12, batch=6, seed=0):
    """Feed everything in batches."""
    selection = SELECTIONS[name](
        size=size, objectives=values.shape[1], rng=np.random.default_rng(seed)
    )
    for end in range(batch, len(values) + 1, batch):
        selection.survive(values[:end], violation[:end], np.arange(end - batch, end))
    return selection


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
@pytest.mark.parametrize("name", sorted(SELECTIONS))
class TestSelection:
    def test_parents_live_and_are_few(self, name, objectives):
        values = np.random.default_rng(1).random((60, objectives))
        selection = run(name, values, np.zeros(60))
        pairs = selection.pairs(25)
        assert pairs.shape == (25, 2)
        assert set(pairs.ravel().tolist()) <= set(selection.living.tolist())
        assert len(set(selection.living.tolist())) == len(selection.living) <= 24

    def test_a_point_that_dominates_all_lives(self, name, objectives):
        rng = np.random.default_rng(2)
        values = 0.1 + rng.random((60, objectives))
        values[7] = 0.05
        assert 7 in run(name, values, np.zeros(60)).living

    def test_feasible_points_come_first(self, name, objectives):
        rng = np.random.default_rng(3)
        values = rng.random((60, objectives))
        violation = np.where(np.arange(60) % 10 == 0, 0.0, 1.0 + rng.random(60))
        values[violation > 0] *= 0.1  # much better, and infeasible
        selection = run(name, values, violation)
        feasible = np.flatnonzero(violation == 0)
        best = feasible[non_dominated(values[feasible])]
        kept = set(best.tolist()) & set(selection.living.tolist())
        # An archive without regard for bounds may crowd none of them out of the other one.
        assert len(kept) >= min(len(best), 4 if objectives > 1 else 1)

    def test_same_seed_same_pairs(self, name, objectives):
        values = np.random.default_rng(4).random((36, objectives))
        pairs = [run(name, values, np.zeros(36), seed=5).pairs(9).tolist() for _ in range(2)]
        assert pairs[0] == pairs[1]

    def test_units_do_not_matter(self, name, objectives):
        values = np.random.default_rng(6).random((36, objectives))
        scale = 10.0 ** np.arange(objectives)
        plain, scaled = (run(name, v, np.zeros(36)).living for v in (values, values * scale))
        shared = len(set(plain.tolist()) & set(scaled.tolist()))
        assert shared >= 0.8 * len(plain)


def test_winners_go_by_the_first_key_that_differs():
    rng = np.random.default_rng(0)
    pairs = np.array([[0, 1], [1, 0], [1, 2], [2, 3]])
    first, second = np.array([0.0, 1.0, 1.0, np.nan]), np.array([9.0, 3.0, 2.0, 1.0])
    assert winners(pairs, [first, second], rng).tolist() == [0, 0, 2, 3]
    draws = [winners(pairs[:1], [np.ones(2)], rng).item() for _ in range(40)]
    assert set(draws) == {0, 1}


def test_all_places_are_paired_alike_often():
    pairs = random_pairs(7, 21, np.random.default_rng(0))
    assert pairs.shape == (21, 2)
    assert np.bincount(pairs.ravel()).tolist() == [6] * 7
    assert random_pairs(3, 0, np.random.default_rng(0)).shape == (0, 2)


@pytest.mark.parametrize(("objectives", "size"), [(1, 30), (2, 30), (3, 30), (5, 30), (5, 2)])
def test_reference_directions_fit_the_population(objectives, size):
    directions = reference_directions(objectives, size)
    assert directions.shape[1] == objectives
    assert len(directions) <= max(size, objectives)
    np.testing.assert_allclose(directions.sum(axis=1), 1.0)


def test_age_moea2_keeps_a_curved_front_evenly():
    """No gap on a quarter circle is twice the mean one, though the points crowd one end."""
    angles = np.linspace(0, 1, 200) ** 3 * np.pi / 2
    values = 1 - np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rank, score = ranks_and_scores(values, 15)
    assert (rank == 0).all()
    kept = np.sort(np.argsort(-score, kind="stable")[:15])
    gaps = np.diff(angles[kept])
    assert angles[kept[0]] < 0.01
    assert kept[-1] == 199
    assert gaps.max() < 2 * gaps.mean()
    assert np.diff(angles)[-1] / np.diff(angles)[0] > 1000
