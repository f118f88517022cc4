"""Evaluations of earlier searches: what they save, and what they must not change."""

import numpy as np
import pytest

from nas.search import ALGORITHMS, hypervolume, search
from search_spaces import SearchSpace
from search_spaces.errors import UserError

LAYERS = 10
SPACE = SearchSpace(
    {
        "embed": (1, 2, 3),
        **{f"heads.{i}": (1, 2, 4) for i in range(LAYERS)},
        **{f"ffn.{i}": (1, 2, 3, 4) for i in range(LAYERS)},
    }
)


def quality(archs):
    """Falls with every width, in some layers more than in others."""
    level = SPACE.encode_all(archs) / (SPACE.cardinalities - 1)
    gain = np.random.default_rng(3).gamma(1.0, size=SPACE.dimensions)
    return np.exp(-2.5 * (np.sqrt(level) @ gain) / gain.sum())[:, None]


def device(seed):
    price = np.random.default_rng(seed).gamma(2.0, size=SPACE.dimensions)

    def latency(archs):
        genes = SPACE.encode_all(archs)
        return (0.5 + (genes[:, 1:] * price[1:]).sum(axis=1) * (1 + 0.5 * genes[:, 0]))[:, None]

    return latency


@pytest.fixture(scope="module")
def first():
    return search(SPACE, quality, device(1), budget=120, seed=0)


def as_known(result):
    return dict(zip(result.architectures, result.values[:, :1].tolist(), strict=True))


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_known_ones_come_first_cost_no_budget_and_are_not_asked_for(name, first, monkeypatch):
    monkeypatch.setattr("nas.search.linas.INNER_EVALUATIONS", 300)
    known = dict(list(as_known(first).items())[:40])
    asked = []

    def evaluate(archs):
        asked.extend(archs)
        return quality(archs)

    result = search(SPACE, evaluate, device(2), budget=15, algorithm=name, known=known)
    assert result.known == 40
    assert result.architectures[:40] == tuple(known)
    assert result.architectures[40:] == tuple(asked)
    assert len(asked) == 15
    assert not set(asked) & set(known)
    np.testing.assert_array_equal(result.values[:, 1:], device(2)(result.architectures))
    assert result.batches[-1] == 55


@pytest.mark.slow
def test_a_second_device_needs_few_evaluations(first):
    """With all qualities of the first, 25 new ones reach 99 % of what 150 reach."""
    result = search(SPACE, quality, device(2), budget=150, known=as_known(first))
    values = result.values
    box = {"ideal": values.min(axis=0), "reference": values[result.front].max(axis=0) * 1.1}
    reached = [hypervolume(values[: result.known + n], **box) for n in (0, 25, 150)]
    assert reached[1] >= 0.99 * reached[2]
    assert reached[0] < reached[1], "the second device wants other subnets than the first"
    alone = search(SPACE, quality, device(2), budget=25)
    assert hypervolume(alone.values, **box) < reached[1]


def test_known_ones_beyond_a_bound_are_kept_but_not_on_the_front(first):
    result = search(
        SPACE,
        quality,
        device(2),
        budget=10,
        known=as_known(first),
        constraints=["latency_ms <= 20"],
        objective_names=["error", "latency_ms"],
    )
    assert result.known == len(first.architectures)
    assert (result.values[result.front, 1] <= 20).all()
    assert (result.values[result.known :, 1] <= 20).all()
    assert (result.values[:, 1] > 20).any()


def test_two_names_of_one_known_architecture_are_one():
    space = SearchSpace({"depth": (1, 2), "width": (1, 2, 3)}, {"width": {"depth": (2,)}})
    known = {space.smallest: [1.0], space.largest: [0.5]}
    result = search(space, lambda archs: [[len(a)] for a in archs], known=known)
    assert result.known == 2
    assert len(result.architectures) == space.size


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({SPACE.smallest: [np.nan]}, "known returned nan"),
        ({SPACE.smallest: [1.0], SPACE.largest: [1.0, 2.0]}, "known returned"),
        ({SearchSpace({"other": (1,)}).smallest: [1.0]}, "'other' is no gene"),
    ],
)
def test_wrong_ones_are_named(known, message):
    with pytest.raises(UserError, match=message):
        search(SPACE, quality, known=known)


@pytest.mark.slow
def test_it_stops_when_little_is_expected(first):
    def run(min_gain):
        return search(
            SPACE, quality, device(2), budget=200, known=as_known(first), min_gain=min_gain
        )

    early, late = run(3e-3), run(3e-4)
    assert len(early.architectures) < len(late.architectures) < first_end(first)
    for result, least in ((early, 3e-3), (late, 3e-4)):
        sizes = np.diff([result.known, *result.batches])
        gains = np.array(result.expected_gains)
        assert (gains >= least * sizes).all()
    assert late.architectures[: len(early.architectures)] == early.architectures
    assert early.stopped == late.stopped == "gain"


def first_end(first):
    return len(first.architectures) + 200


def test_a_search_without_expectations_goes_on():
    result = search(SPACE, quality, device(1), budget=40, algorithm="nsga2", min_gain=0.5)
    assert len(result.architectures) == 40
    assert set(result.expected_gains) == {None}
    with pytest.raises(UserError, match="min_gain -1 is below 0"):
        search(SPACE, quality, min_gain=-1)
