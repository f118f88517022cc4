"""Where proposals become candidates: canonical, never seen before, and within the cheap bounds."""

from collections.abc import Sequence

import numpy as np

from nas.search.enumeration import enumerate_genes
from nas.search.problem import Genes, Problem
from nas.search.variation import mutate, single_changes
from search_spaces import Architecture

ENUMERABLE = 20_000
"""Spaces up to this size are listed when proposals run out; larger ones if the budget is near."""

_ROUNDS = 12
_ROUNDS_IN_VAIN = 3
_ANCHORS = 8


class Candidates:
    """Gives out every architecture at most once, and none that breaks a cheap bound.

    Every method does a bounded amount of work, whatever the space and the bounds.

    Args:
        problem: Space, cheap columns and bounds.
        rng: Source of all randomness here.
        anchor: An architecture within the cheap bounds, where a repair may end; needed only if
            the problem has cheap bounds.
    """

    def __init__(
        self, problem: Problem, rng: np.random.Generator, anchor: Architecture | None = None
    ) -> None:
        self._problem = problem
        self._space = problem.space
        self._rng = rng
        self._bounded = bool(problem.cheap_constraints)
        self.known = 0
        """How many were evaluated before the search."""
        self._seen: set[Architecture] = set()
        self._feasible: list[Genes] = [] if anchor is None else [self._space.encode(anchor)]
        self._expanded = 0
        self._frontier: list[Genes] = []
        self._looked_at: set[bytes] = set()
        self._unlisted: list[Architecture] | None = None

    def leave_out(self, architectures: Sequence[Architecture]) -> None:
        """Count architectures that were evaluated before the search as seen."""
        self.known = len(architectures)
        self._seen.update(architectures)
        holds = self._problem.cheap_violation(architectures) == 0
        rows = self._space.encode_all(architectures)
        self._feasible += list(rows[holds])

    def admit(
        self, proposals: Sequence[Genes] | Genes, count: int, repair: bool = True
    ) -> list[Architecture]:
        """Take what is new of some proposals.

        Args:
            proposals: Choice indices, each of shape `(d,)`.
            count: Take at most so many.
            repair: Move those that break a cheap bound until they do not; else leave them out.

        Returns:
            New architectures within the cheap bounds, in the order of the proposals. They count
            as seen from now on.
        """
        rows = [self._space.canonical(genes) for genes in proposals]
        architectures = [self._space.decode(genes) for genes in rows]
        if self._bounded:
            fresh = [i for i, arch in enumerate(architectures) if arch not in self._seen]
            broken = self._problem.cheap_violation([architectures[i] for i in fresh]) > 0
            wrong = {i for i, bad in zip(fresh, broken, strict=True) if bad}
            if repair and wrong:
                order = sorted(wrong)
                for i, genes in zip(order, self._repair([rows[i] for i in order]), strict=True):
                    rows[i], architectures[i] = genes, self._space.decode(genes)
                wrong = set()
        else:
            wrong = set()
        taken: list[Architecture] = []
        for i, arch in enumerate(architectures):
            if len(taken) == count:
                break
            if i not in wrong and arch not in self._seen:
                self._seen.add(arch)
                taken.append(arch)
                self._feasible.append(rows[i])
        return taken

    def fill(self, count: int, near: Genes | None = None) -> list[Architecture]:
        """Find new architectures: close to given ones, else at random, else by listing the space.

        Args:
            count: How many are wanted.
            near: Choice indices to start from, shape `(n, d)`; None goes to random ones at once.

        Returns:
            `count` new architectures; fewer if there are no more. (In a space too large to list,
            whose bounds leave little of it, what no chain of single changes within the bounds
            leads to may be missed.)
        """
        found: list[Architecture] = []
        if self._space.size > 2 * len(self._seen):
            if near is not None and len(near):
                found += self._mutated(near, count)
            found += self._random(count - len(found), repair=False)
            if self._bounded:
                # What a repair gives lies near the bound, so uniform samples come first.
                found += self._random(count - len(found), repair=True)
        if len(found) < count and self._space.size <= max(ENUMERABLE, 4 * self._problem.budget):
            found += self._take_listed(count - len(found))
        elif len(found) < count:
            found += self._take_neighbours(count - len(found))
        return found

    def _mutated(self, near: Genes, count: int) -> list[Architecture]:
        """Mutants of given rows, changed more and more."""
        found: list[Architecture] = []
        in_vain = 0
        for changes in range(1, _ROUNDS + 1):
            missing = count - len(found)
            if missing == 0 or in_vain == _ROUNDS_IN_VAIN:
                break
            rows = near[self._rng.integers(0, len(near), size=_trials(missing))]
            new = self.admit(mutate(rows, self._space, self._rng, float(changes)), missing)
            in_vain = 0 if new else in_vain + 1
            found += new
        return found

    def _random(self, count: int, repair: bool) -> list[Architecture]:
        """Architectures uniform over genes."""
        found: list[Architecture] = []
        in_vain = 0
        for _ in range(_ROUNDS):
            missing = count - len(found)
            if missing == 0 or in_vain == _ROUNDS_IN_VAIN:
                break
            shape = (_trials(missing), self._space.dimensions)
            rows = self._rng.integers(0, self._space.cardinalities, size=shape)
            new = self.admit(rows, missing, repair)
            in_vain = 0 if new else in_vain + 1
            found += new
        return found

    def _take_neighbours(self, count: int) -> list[Architecture]:
        """New ones, one gene away from something within the bounds.

        Every known row is expanded once in a search, so this reaches all that is connected by
        single changes, and ends, where bounds leave little of a large space.
        """
        found: list[Architecture] = []
        while len(found) < count:
            if not self._frontier:
                if self._expanded == len(self._feasible):
                    break
                self._frontier = self._neighbours_within(self._feasible[self._expanded])
                self._expanded += 1
            if self._frontier:
                found += self.admit([self._frontier.pop()], 1)
        return found

    def _neighbours_within(self, genes: Genes) -> list[Genes]:
        """Rows one gene away that are within the bounds and were not looked at here before."""
        rows = []
        for row in map(self._space.canonical, single_changes(genes, self._space)):
            if row.tobytes() not in self._looked_at:
                self._looked_at.add(row.tobytes())
                rows.append(row)
        holds = self._problem.cheap_violation(self._space.decode_all(rows)) == 0
        return [row for row, ok in zip(rows, holds, strict=True) if ok]

    def _take_listed(self, count: int) -> list[Architecture]:
        if self._unlisted is None:
            rows = enumerate_genes(self._space)
            order = self._rng.permutation(len(rows))
            listed = self._space.decode_all(rows[order])
            feasible = self._problem.cheap_violation(listed) == 0
            self._unlisted = [arch for arch, ok in zip(listed, feasible, strict=True) if ok]
            self._unlisted.reverse()
        found: list[Architecture] = []
        while self._unlisted and len(found) < count:
            arch = self._unlisted.pop()
            if arch not in self._seen:
                self._seen.add(arch)
                found.append(arch)
        return found

    def _repair(self, rows: list[Genes]) -> list[Genes]:
        """Move each row towards a row within the bounds, as far as it takes.

        Genes are handed over in random order; bisection over how many finds a place where the
        bounds begin to hold, with one batch of cheap evaluations per halving.
        """
        anchors = [self._near_anchor(genes) for genes in rows]
        orders = [self._rng.permutation(self._space.dimensions) for _ in rows]
        low = np.zeros(len(rows), dtype=np.int64)
        high = np.full(len(rows), self._space.dimensions, dtype=np.int64)
        best = [self._space.canonical(anchor) for anchor in anchors]
        while (high - low > 1).any():
            middle = (low + high) // 2
            mixed = []
            for genes, anchor, order, end in zip(rows, anchors, orders, middle, strict=True):
                row = genes.copy()
                row[order[:end]] = anchor[order[:end]]
                mixed.append(self._space.canonical(row))
            holds = self._problem.cheap_violation(self._space.decode_all(mixed)) == 0
            for i in np.flatnonzero(holds & (high - low > 1)):
                best[i] = mixed[i]
            high, low = np.where(holds, middle, high), np.where(holds, low, middle)
        return best

    def _near_anchor(self, genes: Genes) -> Genes:
        picks = self._rng.integers(0, len(self._feasible), size=_ANCHORS)
        distances = [int((self._feasible[i] != genes).sum()) for i in picks]
        return self._feasible[int(picks[int(np.argmin(distances))])]


def _trials(missing: int) -> int:
    """Proposals per round: more than needed, since some turn out to be known."""
    return max(8, 2 * missing)
