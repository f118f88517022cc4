import time
from itertools import pairwise

import numpy as np
import pytest

from nas.search import Constraint, hypervolume, search
from search_spaces import SearchSpace

SPACE = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(30)})
GAIN, COST = np.random.default_rng(11).gamma(1.0, size=(2, 30))


def smooth(archs):
    level = SPACE.encode_all(archs) / 3
    error = np.exp(-3 * (np.sqrt(level) @ GAIN) / GAIN.sum())
    return np.stack([error, level @ COST / COST.sum()], axis=1)


def crooked(archs):
    """Neither objective follows the order of choices; neighbours interact."""
    rng = np.random.default_rng(2)
    genes = SPACE.encode_all(archs)
    tables = rng.normal(size=(2, 30, 4))
    pairs = rng.normal(size=(2, 29, 4, 4)) * 0.5
    index = np.arange(30)
    alone = tables[:, index, genes].sum(axis=2)
    together = pairs[:, index[:-1], genes[:, :-1], genes[:, 1:]].sum(axis=2)
    return np.exp((alone + together) / 10).T


def grown(values, results, n):
    """Hypervolume after n evaluations in a box around all results."""
    every = np.vstack([result.values for result in results])
    return hypervolume(values[:n], ideal=every.min(axis=0), reference=every.max(axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("evaluate", [smooth, crooked])
def test_it_needs_a_quarter_of_the_evaluations_of_nsga2(evaluate):
    ours = search(SPACE, evaluate, budget=100)
    theirs = search(SPACE, evaluate, budget=400, algorithm="nsga2")
    both = (ours, theirs)
    assert grown(ours.values, both, 100) > grown(theirs.values, both, 400)


@pytest.mark.slow
def test_a_bound_on_what_is_evaluated_is_learned():
    """One in a few hundred random architectures meets it."""
    bound = Constraint(objective=0, operator="<=", bound=0.12)
    result = search(SPACE, smooth, budget=60, constraints=[bound])
    late = result.values[30:]
    assert (late[:, 0] <= 0.12).mean() > 0.5
    assert len(result.front) > 5


@pytest.mark.slow
def test_one_objective_under_a_bound():
    """Least error at a cost known for nothing, as HAT searches."""
    result = search(
        SPACE,
        lambda archs: smooth(archs)[:, :1],
        lambda archs: smooth(archs)[:, 1:],
        budget=60,
        constraints=[Constraint(objective=-1, operator="<=", bound=0.3)],
    )
    assert (result.values[:, 1] <= 0.3).all()
    rng = np.random.default_rng(0)
    at_random = smooth([SPACE.decode(rng.integers(0, 3, 30) % 2) for _ in range(3000)])
    feasible = at_random[at_random[:, 1] <= 0.3]
    assert result.values[:, 0].min() < feasible[:, 0].min()


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [[], [Constraint(objective=0, operator="<=", bound=0.12)]])
def test_a_short_search_is_the_beginning_of_a_long_one(constraints):
    """Also where the budget cuts the last batch short, after 1, 2 or 3 of 5."""
    long = search(SPACE, smooth, budget=45, seed=4, constraints=constraints)
    for budget in (31, 32, 33):
        short = search(SPACE, smooth, budget=budget, seed=4, constraints=constraints)
        assert long.architectures[:budget] == short.architectures


def test_an_objective_that_never_changes_does_no_harm():
    result = search(
        SPACE, lambda archs: np.column_stack([smooth(archs), np.ones(len(archs))]), budget=35
    )
    assert len(result.architectures) == 35


@pytest.mark.slow
def test_five_objectives():
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(5, 30, 4))

    def evaluate(archs):
        genes = SPACE.encode_all(archs)
        return tables[:, np.arange(30), genes].sum(axis=2).T

    ours = search(SPACE, evaluate, budget=80)
    theirs = search(SPACE, evaluate, budget=80, algorithm="nsga2")
    both = (ours, theirs)
    assert grown(ours.values, both, 80) > 1.1 * grown(theirs.values, both, 80)


@pytest.mark.parametrize("penalty", [1e4, 1e12])
def test_failures_that_are_given_a_large_value_do_no_harm(penalty):
    def evaluate(archs):
        values = smooth(archs)
        # Fails where it is cheapest, so that failures are on the front.
        values[SPACE.encode_all(archs)[:, :2].sum(axis=1) == 0, 0] = penalty
        return values

    ours = search(SPACE, evaluate, budget=60)
    theirs = search(SPACE, evaluate, budget=60, algorithm="nsga2")
    box = {"ideal": [0, 0], "reference": [1, 1]}
    assert hypervolume(ours.values, **box) > 1.02 * hypervolume(theirs.values, **box)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_unit_of_an_objective_does_not_matter(scale):
    factor = np.array([scale, 1.0])
    plain = search(SPACE, smooth, budget=30)
    scaled = search(SPACE, lambda archs: smooth(archs) * factor, budget=30)
    box = {"ideal": [0, 0], "reference": [1, 1]}
    assert hypervolume(scaled.values / factor, **box) == pytest.approx(
        hypervolume(plain.values, **box), rel=0.1
    )


def test_the_front_reaches_the_bounds_where_both_ends_of_the_sizes_are_outside():
    space = SearchSpace({f"g{i}": tuple(range(4)) for i in range(10)})

    def evaluate(architectures):
        size = np.array([sum(arch.values()) / 30 for arch in architectures])
        rest = np.array([abs(arch["g0"] - arch["g1"]) + arch["g2"] % 2 for arch in architectures])
        return np.column_stack([np.exp(-3 * size) + 0.02 * rest, size])

    bounds = [
        Constraint(objective=0, operator="<=", bound=0.5),
        Constraint(objective=1, operator="<=", bound=0.7),
    ]
    result = search(space, evaluate, budget=60, constraints=bounds, objective_names=("a", "b"))
    front = result.values[result.front]
    # Sizes go in steps of 1/30: exp(-3 * 7/30) is the largest error within the bound.
    assert front[:, 1].min() == pytest.approx(7 / 30)
    assert front[:, 1].max() > 19.5 / 30


def test_where_nothing_more_is_hoped_for_a_search_goes_on():
    """One architecture meets the bound; what else there is surely breaks it."""
    space = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(7)})

    def evaluate(archs):
        return (space.encode_all(archs) @ np.arange(1, 8))[:, None].astype(float)

    bound = Constraint(objective=0, operator="<=", bound=0.5)
    result = search(space, evaluate, budget=60, constraints=[bound])
    assert result.values[result.front].tolist() == [[0.0]]
    assert (result.stopped, len(result.architectures)) == ("budget", 60)
    assert all(gain is None or gain >= 0 for gain in result.expected_gains)


def test_start_takes_less_than_a_second():
    """A hundred genes, half of the sizes beyond a bound: until the first batch is asked for."""
    space = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(100)})
    level = np.random.default_rng(0).random((100, 2))

    class Asked(Exception):
        pass

    def evaluate(archs):
        raise Asked

    def cheap(archs):
        return np.array([list(arch.values()) for arch in archs]) @ level

    bound = Constraint(objective=-1, operator="<=", bound=60)
    begin = time.process_time()
    with pytest.raises(Asked):
        search(space, evaluate, cheap, budget=800, constraints=[bound])
    assert time.process_time() - begin < 1.0


def test_under_a_bound_on_what_is_learned_every_batch_tries_what_was_given_up():
    space = SearchSpace({f"g{i}": (0, 1, 2, 3) for i in range(5)})

    def evaluate(archs):
        genes = space.encode_all(archs)
        return np.column_stack([np.exp(-genes @ [9, 1, 1, 1, 1] / 10), genes.sum(axis=1)])

    bound = Constraint(objective=0, operator="<=", bound=0.25)  # never with the least g0
    result = search(space, evaluate, budget=70, constraints=[bound])
    genes = space.encode_all(result.architectures)
    later = [end for end in result.batches if end >= 20]
    assert len(later) > 5
    for begin, end in pairwise(later):
        late = genes[begin // 3 : begin]
        seen = (late[:, :, None] == np.arange(4)).sum(axis=0)  # (genes, choices)
        of_each = seen[np.arange(5), genes[begin:end]]  # (batch, genes)
        assert of_each.min() == seen.min()


def test_minor_genes_do_not_take_the_evaluations_of_others():
    """Each format of known widths is a small sure gain; the widths are what there is to learn."""
    widths = {f"w{i}": (0, 1, 2, 3) for i in range(8)}
    formats = {f"f{i}": (0, 1, 2) for i in range(8)}
    space = SearchSpace({**widths, **formats}, minor=formats)
    gain = np.random.default_rng(3).gamma(1.0, size=8)

    def level(archs, names):
        return np.array([[arch[name] for name in names] for arch in archs]) / 3

    def error(archs):
        small = 0.01 * level(archs, formats).sum(axis=1)
        return (np.exp(-2 * np.sqrt(level(archs, widths)) @ gain / gain.sum()) + small)[:, None]

    def size(archs):
        each = (1 + level(archs, widths)) * (1 - level(archs, formats) / 2)
        return each.sum(axis=1)[:, None]

    result = search(space, error, cheap=size, budget=120, seed=1)
    late = [tuple(arch[name] for name in widths) for arch in result.architectures[40:]]
    known = {tuple(arch[name] for name in widths) for arch in result.architectures[:40]}
    fresh = [key not in known and key not in late[:place] for place, key in enumerate(late)]
    assert 0.5 < np.mean(fresh) < 1

    # Where nothing else is left to choose, they have it all
    alone = SearchSpace({**dict.fromkeys(widths, (2,)), **formats}, minor=formats)
    best = min(
        size([arch]).item() for arch in search(alone, error, cheap=size, budget=60).architectures
    )
    assert best == pytest.approx(8 * (1 + 2 / 3) * 2 / 3)


def test_a_short_search_with_minor_genes_is_the_beginning_of_a_long_one():
    names = [f"g{i}" for i in range(30)]
    space = SearchSpace(dict.fromkeys(names, (0, 1, 2, 3)), minor=names[15:])
    long = search(space, smooth, budget=110, seed=1).architectures
    for budget in (73, 86, 104):
        assert search(space, smooth, budget=budget, seed=1).architectures == long[:budget]
