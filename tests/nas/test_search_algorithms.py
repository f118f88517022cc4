"""The contract of `nas.search.Algorithm`, run on every implementation."""

import numpy as np
import pytest

from nas.search import ALGORITHMS
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


def start(name, *, space=SPACE, initial=(), seed=0):
    problem = Problem(space=space, budget=100)
    rng = np.random.default_rng(seed)
    return ALGORITHMS[name](
        problem,
        candidates=Candidates(problem, rng),
        rng=rng,
        population=12,
        initial=initial,
    )


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
        for _ in range(6):
            batch = algorithm.ask(10)
            algorithm.tell(batch, np.ones((len(batch), 2)))
            seen += batch
        assert len(set(seen)) >= 52
