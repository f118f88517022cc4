"""Cheap looks first: which architectures are worth a full evaluation.

A look at a lower fidelity is a biased observation of the full evaluation, and correlated with it.
How far both lie apart is measured on the architectures that were evaluated at both. An
architecture is promoted if, being as good as three in ten of those with a look like its own turned
out to be, it would not be dominated by anything that was fully evaluated. So what is likely to be
dominated costs a look, and what may be on the front costs a look and a full evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.problem import Evaluate, Floats, Genes, Problem, checked_values
from nas.search.record import Record
from search_spaces import Architecture
from search_spaces.errors import UserError

PAIRS = 12
"""So many architectures are evaluated at every fidelity before any is left behind."""
_NEAREST = 16
"""Pairs with the nearest looks, which a look is judged by."""
_OPTIMISM = 0.5244
"""Standard deviations: three in ten of a normal distribution are better by so many. One in ten
promotes half as many again, for little that is found; one in two found less with `guided`."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A cheaper evaluation of the same objectives: on a part of the data, say."""

    evaluate: Evaluate
    """The columns of the search's `evaluate`, roughly, shape `(n, m)`."""
    cost: float
    """What one architecture costs, as a share of a full evaluation."""

    def __post_init__(self) -> None:
        """Check the cost.

        Raises:
            UserError: It is not between 0 and 1.
        """
        if not 0 < self.cost < 1:
            raise UserError(
                f"a fidelity of cost {self.cost} is not between 0 and 1, a full evaluation; "
                "give its share of one, such as 0.25"
            )


def check_fidelities(fidelities: Sequence[Fidelity]) -> None:
    """Check the order.

    Raises:
        UserError: Costs do not rise.
    """
    costs = [fidelity.cost for fidelity in fidelities]
    if sorted(set(costs)) != costs:
        raise UserError(f"costs of fidelities {costs} do not rise; give the cheapest first")


class Climb:
    """Evaluates batches from the lowest fidelity upwards, and keeps within the budget.

    It has no randomness and looks at nothing but what was evaluated, so a search with fidelities
    is replayed like any other. Without fidelities everything is fully evaluated.

    Args:
        problem: Cheap columns and bounds.
        evaluate: The full evaluation.
        fidelities: Lower ones, the cheapest first.
        record: Where full evaluations are kept.
    """

    def __init__(
        self,
        problem: Problem,
        evaluate: Evaluate,
        fidelities: Sequence[Fidelity],
        record: Record,
    ) -> None:
        self._problem = problem
        self._evaluate = evaluate
        self._rungs = [_Rung(fidelity) for fidelity in fidelities]
        self._record = record
        self._share = sum(fidelity.cost for fidelity in fidelities)
        self._pairs = 0
        self.left_behind: list[Architecture] = []
        """What was looked at and not promoted, in the order it was asked for."""

    @property
    def spent(self) -> float:
        """In full evaluations."""
        return self._record.evaluated + sum(rung.spent for rung in self._rungs)

    def affordable(self, budget: int) -> int:
        """How many more architectures can be evaluated even if all of them are promoted."""
        left = budget - self.spent + _ROUNDING
        return int(left / (1 + self._share)) or int(left)

    def __call__(self, asked: Sequence[Architecture], budget: int) -> Floats:
        """Look at, promote and evaluate a batch.

        Args:
            asked: At most `affordable(budget)` new architectures.
            budget: In full evaluations.

        Returns:
            All columns, shape `(n, m + k)`: as evaluated; of those left behind, as expected.
        """
        too_little = len(asked) * (1 + self._share) > budget - self.spent + _ROUNDING
        if too_little or not self._rungs:
            return self._record.add(asked, self._evaluate(asked))
        # The first ones tell how far looks lie from full evaluations; only then others are judged.
        first = max(0, PAIRS - self._pairs)
        parts = [part for part in (asked[:first], asked[first:]) if part]
        return np.vstack([self._climb(part) for part in parts])

    def use_up(self, budget: int) -> None:
        """Fully evaluate what was left behind, as much as can be afforded."""
        count = int(budget - self.spent + _ROUNDING)
        some, self.left_behind = self.left_behind[:count], self.left_behind[count:]
        if some:
            self._record.open_batch((), None)
            self._record.add(some, self._evaluate(some))
            self._record.close_batch()

    def _climb(self, part: Sequence[Architecture]) -> Floats:
        judged = self._pairs >= PAIRS
        cheap = self._problem.cheap_values(part)
        told: Floats | None = None
        climbing = list(range(len(part)))
        looks: list[Floats] = []  # of those that are climbing, `(n, m)` for each fidelity
        for rung in self._rungs:
            look = rung.look([part[i] for i in climbing])
            looks.append(look)
            if judged:
                expected, at_best = rung.bias.judge(look)
                expected = np.hstack([expected, cheap[climbing]])
                if told is None:
                    told = np.empty((len(part), expected.shape[1]))
                told[climbing] = expected
                promoted = self._may_be_on_the_front(np.hstack([at_best, cheap[climbing]]))
                climbing = [climbing[i] for i in promoted]
                looks = [look[promoted] for look in looks]
        self.left_behind += [arch for i, arch in enumerate(part) if i not in climbing]
        if not climbing:
            assert told is not None
            return told
        best = [part[i] for i in climbing]
        values = self._record.add(best, self._evaluate(best))
        width = values.shape[1] - cheap.shape[1]
        for rung, look in zip(self._rungs, looks, strict=True):
            rung.check(width)
            rung.bias.learn(look, values[:, :width])
        self._pairs += len(best)
        if told is None:
            return values
        told[climbing] = values
        return told

    def _may_be_on_the_front(self, values: Floats) -> Genes:
        """Rows of `(n, m + k)` that nothing fully evaluated dominates, bounds counting first."""
        found = self._record.values
        broken = self._problem.violation(values)
        least = self._problem.violation(found)
        if least.min() > 0:
            return np.flatnonzero(broken <= least.min())
        front = found[least == 0]
        no_better = (front[:, None, :] <= values).all(axis=2)
        better = (front[:, None, :] < values).any(axis=2)
        return np.flatnonzero((broken == 0) & ~(no_better & better).any(axis=0))


class _Rung:
    """One lower fidelity, and how far its looks lie from full evaluations."""

    def __init__(self, fidelity: Fidelity) -> None:
        self._fidelity = fidelity
        self._count = 0
        self._width: int | None = None
        self.bias = LookBias()

    @property
    def spent(self) -> float:
        """In full evaluations."""
        return self._fidelity.cost * self._count

    def look(self, architectures: Sequence[Architecture]) -> Floats:
        """Values of n architectures at this fidelity, `(n, m)`."""
        if not architectures:
            return np.zeros((0, self._width or 0))  # none is climbing any more
        name = f"the fidelity of cost {self._fidelity.cost:g}"
        found = self._fidelity.evaluate(architectures)
        values = checked_values(found, architectures, self._width, name)
        self._width = values.shape[1]
        self._count += len(architectures)
        return values

    def check(self, width: int) -> None:
        """Compare the number of objectives with that of the full evaluation.

        Raises:
            UserError: They differ.
        """
        if width != self._width:
            raise UserError(
                f"the fidelity of cost {self._fidelity.cost:g} gives {self._width} objectives, "
                f"evaluate gives {width}; let both give the same ones"
            )


class LookBias:
    """How far looks at one fidelity lie from full evaluations, learned from pairs of both.

    Bias and spread are those of the nearest pairs, objective by objective: both differ along the
    range of an objective.
    """

    def __init__(self) -> None:
        self._looks: Floats = np.zeros((0, 0))
        self._errors: Floats = np.zeros((0, 0))

    def learn(self, looks: Floats, full: Floats) -> None:
        """Take in n looks and the full evaluations of the same architectures, each `(n, m)`."""
        self._looks = np.concatenate([self._looks.reshape(-1, looks.shape[1]), looks])
        self._errors = np.concatenate([self._errors.reshape(-1, looks.shape[1]), full - looks])

    def judge(self, looks: Floats) -> tuple[Floats, Floats]:
        """What full evaluations are expected to give, and would give in three cases of ten.

        Args:
            looks: Shape `(k, m)`; at least two pairs are known.

        Returns:
            Both of shape `(k, m)`.
        """
        expected, at_best = np.empty_like(looks), np.empty_like(looks)
        for column in range(looks.shape[1]):
            distance = np.abs(looks[:, column, None] - self._looks[:, column])
            nearest = np.argsort(distance, axis=1, kind="stable")[:, :_NEAREST]
            errors = self._errors[nearest, column]  # (k, nearest)
            spread = errors.std(axis=1, ddof=1) * np.sqrt(1 + 1 / errors.shape[1])
            expected[:, column] = looks[:, column] + errors.mean(axis=1)
            at_best[:, column] = expected[:, column] - _OPTIMISM * spread
        return expected, at_best
