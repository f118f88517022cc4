"""BOSHNAS: gradient steps on the input of a surrogate that knows what it does not know.

FlexiBERT (arXiv:2205.11656). The surrogate predicts mean and noise of every objective
(heteroscedastic), a second network predicts how unsure the first one is (epistemic); both are in
`nas.search.surrogate`. From good architectures and random ones, gradient steps on the one-hot
genes go up the confidence bound; where they end is snapped to the nearest architecture. Some of a
batch goes where the surrogate is least sure, some is random, as in the paper.

The paper maximises one figure. Here each gradient descent has a direction of its own, an augmented
Chebyshev scalarisation with random weights (ParEGO, Knowles, 2006, 10.1109/TEVC.2005.851274).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas.search.candidates import Candidates
from nas.search.initial import initial_population
from nas.search.problem import Floats, Genes, Problem
from nas.search.variation import canonical, mutate
from search_spaces import Architecture

if TYPE_CHECKING:
    from nas.search.surrogate import Surrogate

UNSURE, RANDOM = 0.1, 0.1
"""Shares of a batch that are chosen for uncertainty alone, and at random; alpha and beta."""
STARTS = 4
"""Gradient descents for each architecture that is wanted."""
_PENALTY = 10.0


class Boshnas:
    """Initial population spread over size, then gradient steps. See `AlgorithmFactory`.

    Of cheap objectives the surrogate needs gradients, so it learns them too; but where descents
    end, candidates are compared with what is known of them.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
    ) -> None:
        self._problem = problem
        self._space = problem.space
        self._candidates = candidates
        self._rng = rng
        self.batch = max(1, population // 3)
        self.expected_gain = None
        self._queue = initial_population(problem, candidates, population, rng, initial)
        self._genes: Genes = np.zeros((0, problem.space.dimensions), dtype=np.int64)
        self._values = np.zeros((0, 0))
        self._surrogate: Surrogate | None = None
        self._stale = True

    def ask(self, count: int) -> list[Architecture]:
        """The initial population, then where gradient steps lead; see `Algorithm.ask`."""
        if self._queue:
            batch, self._queue = self._queue[:count], self._queue[count:]
            return batch
        if len(self._genes) < 2:
            return self._candidates.fill(count)
        from nas.search.surrogate import one_torch_thread  # torch takes a second

        random = int(self._rng.binomial(count, RANDOM))
        with one_torch_thread():
            proposals = self._descend(self._fitted(), count - random)
        batch = self._candidates.admit(proposals, count - random)
        batch += self._candidates.fill(count - random - len(batch), near=proposals)
        return batch + self._candidates.fill(count - len(batch))

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Remember; the surrogate learns it at the next `ask`."""
        if len(architectures):
            self._genes = np.vstack([self._genes, self._space.encode_all(architectures)])
            self._values = np.vstack([self._values.reshape(-1, values.shape[1]), values])
            self._stale = True

    def _fitted(self) -> Surrogate:
        from nas.search.surrogate import Surrogate

        if self._surrogate is None:
            self._surrogate = Surrogate(
                self._space, self._values.shape[1], seed=int(self._rng.integers(2**31))
            )
        if self._stale:
            self._surrogate.fit(self._genes, self._values)
            self._stale = False
        return self._surrogate

    def _descend(self, surrogate: Surrogate, count: int) -> Genes:
        """Proposals, the best of each direction in turn, shape `(n, d)`."""
        if count == 0:
            return self._genes[:0]
        starts = STARTS * count
        ideal = self._values.min(axis=0)
        weights = self._rng.dirichlet(np.ones(self._values.shape[1]), size=count)
        unsure = self._rng.random(count) < UNSURE
        directions = np.repeat(np.arange(count), STARTS)
        rows = surrogate.descend(
            self._starts(surrogate, weights, starts),
            np.where(unsure[:, None], 0.0, weights)[directions],
            surrogate.scaled(ideal, slice(None)),
        )
        rows = canonical(self._space, rows)
        # Every direction ranks what all descents found, and what lies beside it.
        rows = np.unique(
            np.vstack([rows, canonical(self._space, mutate(rows, self._space, self._rng))]), axis=0
        )
        mean, noise, doubt = surrogate.predict(rows)
        architectures = self._space.decode_all(rows)
        if self._problem.cheap_width:
            known = self._problem.cheap_values(architectures)
            mean[:, -self._problem.cheap_width :] = surrogate.scaled(
                known, slice(-self._problem.cheap_width, None)
            )
        violation = self._problem.violation(surrogate.restored(mean))
        bound = mean - noise - doubt - surrogate.scaled(ideal, slice(None))
        order = []
        for weight, explore in zip(weights, unsure, strict=True):
            if explore:
                score = -(noise + doubt).sum(axis=1)
            else:
                score = scalarised(bound, weight) + _PENALTY * np.minimum(violation, 1.0)
            order.append(np.argsort(score, kind="stable"))
        # First what is best in each direction, then what is second best, and so on.
        places = list(dict.fromkeys(np.stack(order, axis=1).reshape(-1).tolist()))
        return np.asarray(rows[places], dtype=np.int64)

    def _starts(self, surrogate: Surrogate, weights: Floats, count: int) -> Genes:
        """For each direction the best that is known, its mutants, and one at random."""
        scaled = surrogate.scaled(self._values, slice(None))
        scaled = scaled - scaled.min(axis=0)
        violation = self._problem.violation(self._values)
        rows = []
        for weight in weights:
            score = scalarised(scaled, weight) + _PENALTY * np.minimum(violation, 1.0)
            best = self._genes[np.argsort(score, kind="stable")[: STARTS - 2]]
            best = best[np.arange(STARTS - 2) % len(best)]
            mutant = mutate(best[:1], self._space, self._rng, changes=3.0)
            fresh = self._rng.integers(0, self._space.cardinalities)[None, :]
            rows.append(np.vstack([best, mutant, fresh]))
        return np.vstack(rows)[:count]


def scalarised(distance: Floats, weight: Floats) -> Floats:
    """Augmented Chebyshev scalarisation of distances to the ideal `(n, m)`, `(n,)`; minimised."""
    weighted = distance * weight
    return np.asarray(weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))
