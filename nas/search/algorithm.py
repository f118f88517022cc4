"""What a search algorithm is: something to ask for architectures and to tell their values."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nas.search.candidates import Candidates
from nas.search.problem import Floats, Problem
from search_spaces import Architecture


class Algorithm(Protocol):
    """One search in progress.

    An algorithm holds no clock and no other randomness than its generator, and looks at nothing
    but what it was told. Hence the same seed and the same values give the same questions, and an
    interrupted search goes on by replaying it. Every implementation passes the tests of
    `tests/nas/test_search_algorithms.py`.
    """

    @property
    def batch(self) -> int:
        """How many it would rather be asked for next, at least 1."""

    @property
    def expected_gain(self) -> float | None:
        """Share by which the last `ask` is expected to raise the hypervolume; None if unknown."""

    def ask(self, count: int) -> list[Architecture]:
        """Architectures to evaluate next.

        Args:
            count: At most so many, at least 1.

        Returns:
            Distinct architectures, none of which was asked for before and none of which breaks a
            bound on a cheap objective. Empty only if there are no more.
        """

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Learn the values of the architectures of the last `ask`.

        Before the first `ask` it may be told what was known before the search.

        Args:
            architectures: The n architectures, in the order of `ask`.
            values: All objectives, cheap columns last, finite, minimised, shape `(n, m + k)`.
        """


class AlgorithmFactory(Protocol):
    """Starts a search."""

    def __call__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
    ) -> Algorithm:
        """Start a search.

        Args:
            problem: What is known before any evaluation.
            candidates: Where proposals are checked, repaired and made distinct.
            rng: The only source of randomness, shared with `candidates`.
            population: Size of the population, of the initial one too.
            initial: Architectures to evaluate first; those that break a cheap bound are left out.
        """
