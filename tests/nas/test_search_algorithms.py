"""The contract of `nas.search.Algorithm`, run on every implementation."""

import numpy as np
import pytest

from nas.search import ALGORITHMS, Constraint, hypervolume
from nas.search.candidates import Candidates
from nas.search.problem import Problem
from search_spaces import SearchSpace

SPACE = SearchSpace(
    {"depth": (1, 2, 3), **{f"w{i}": (1, 2, 4) for i in range(6)}},
    {f"w{i}": {"depth": tuple(range(i // 2 + 1, 4))} for i in range(6)},
)


def values(archs):
    return np.array(
        [[np.exp(-sum(arch.values())), sum(arch.values()), len(arch)] for arch in archs]
    )


WIDE = SearchSpace({f"g{i}": tuple(range(6)) for i in range(12)})


def wide_values(archs):
    """Three objectives that share their genes: each is good where two others are bad."""
    levels = WIDE.encode_all(archs).reshape(len(archs), 4, 3) / 5
    size = levels.mean(axis=1)
    return np.stack([size[:, 0], 1 - size.min(axis=1), (1 - levels[:, :, 2]).mean(axis=1)], axis=1)


def start(name, *, space=SPACE, initial=(), seed=0, constraints=()):
    problem = Problem(space=space, budget=100, constraints=constraints)
    rng = np.random.default_rng(seed)
    return ALGORITHMS[name](
        problem,
        candidates=Candidates(problem, rng),
        rng=rng,
        population=12,
        initial=initial,
    )


@pytest.fixture(autouse=True)
def _short_inner_searches(monkeypatch):
    monkeypatch.setattr("nas.search.linas.INNER_EVALUATIONS", 300)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
class TestAlgorithm:
    def test_batches_of_any_size_are_distinct_and_never_repeat(self, name):
        algorithm = start(name)
        seen = []
        for count in (1, 5, 2, 30, 1, 1, 40):
            asked = algorithm.ask(count)
            assert 1 <= len(asked) <= count
            algorithm.tell(asked, values(asked))
            seen += asked
        assert len(set(seen)) == len(seen)
        assert all(arch in SPACE for arch in seen)

    def test_same_seed_same_questions(self, name):
        def questions(seed):
            algorithm, asked = start(name, seed=seed), []
            for _ in range(5):
                batch = algorithm.ask(8)
                algorithm.tell(batch, values(batch))
                asked += batch
            return asked

        assert questions(1) == questions(1)
        assert questions(1) != questions(2)

    def test_initial_is_asked_first(self, name):
        initial = [SPACE.largest, SPACE.smallest]
        algorithm = start(name, initial=initial)
        assert algorithm.ask(1) == initial[:1]
        assert algorithm.ask(1) == initial[1:]

    def test_an_exhausted_space_gives_empty_batches(self, name):
        space = SearchSpace({"a": (0, 1), "b": (0, 1, 2)})
        algorithm, seen = start(name, space=space), []
        while batch := algorithm.ask(4):
            algorithm.tell(batch, values(batch))
            seen += batch
        assert len(set(seen)) == len(seen) == 6
        assert algorithm.ask(4) == []

    def test_equal_values_do_no_harm(self, name):
        algorithm, seen = start(name), []
        for _ in range(12):  # some end a batch where their population ends
            batch = algorithm.ask(10)
            algorithm.tell(batch, np.ones((len(batch), 2)))
            seen += batch
        assert len(set(seen)) >= 52

    def test_one_objective_and_bounds_that_nothing_meets_yet(self, name):
        bound = Constraint(objective=0, operator="<=", bound=4)
        algorithm, best = start(name, constraints=(bound,)), []
        for _ in range(8):
            batch = algorithm.ask(10)
            sums = np.array([[float(sum(arch.values()))] for arch in batch])
            algorithm.tell(batch, sums)
            best.append(sums.min())
        assert sum(SPACE.smallest.values()) == 3 <= min(best) <= 4

    def test_it_beats_random_search_on_many_objectives(self, name):
        """Not a figure of merit: an algorithm that mixes up its rows fails it."""
        found = {}
        for other in (name, "random"):
            algorithm, rows = start(other, space=WIDE), []
            for _ in range(15):
                batch = algorithm.ask(10)
                rows.append(wide_values(batch))
                algorithm.tell(batch, rows[-1])
            found[other] = hypervolume(np.vstack(rows), ideal=np.zeros(3), reference=np.ones(3))
        assert found[name] >= found["random"]
