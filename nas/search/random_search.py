"""Random search: the baseline that every other algorithm has to beat."""

from collections.abc import Sequence

import numpy as np

from nas.search.candidates import Candidates
from nas.search.problem import Floats, Problem
from search_spaces import Architecture


class RandomSearch:
    """Distinct architectures, uniform over genes. See `AlgorithmFactory` for the arguments."""

    def __init__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
    ) -> None:
        del rng
        self.batch = max(1, population // 3)
        self.expected_gain = None
        self._candidates = candidates
        given = [problem.space.encode(problem.space.architecture(arch)) for arch in initial]
        self._queue = candidates.admit(given, len(given), repair=False)

    def ask(self, count: int) -> list[Architecture]:
        """What the caller gave first, then random architectures; see `Algorithm.ask`."""
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch + self._candidates.fill(count - len(batch))

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Random search learns nothing."""
