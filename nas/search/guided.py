"""Search guided by predictors: evaluates what promises the most hypervolume, given the doubt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.search.candidates import Candidates
from nas.search.constraints import total_violation
from nas.search.directions import Box, Mask, draw_directions, lengths
from nas.search.enumeration import enumerate_genes
from nas.search.initial import initial_population
from nas.search.inner_search import RowHash, evolve
from nas.search.one_thread import one_thread
from nas.search.pareto import non_dominated
from nas.search.problem import Floats, Genes, Problem
from nas.search.variation import canonical, mutate
from predictors.quality import QualityPredictor
from search_spaces import Architecture

_PER_BATCH = 16
_BATCHES = (5, 20)
"""A batch is this part of what was evaluated, within these sizes."""
_LEARNED_FROM = 1000
"""Evaluations that predictors learn from, at most: their cost grows with the third power."""
_LISTED = 4096
"""Spaces up to this size are gone through as a whole instead of by evolution."""
_REMEMBERED = 200_000
"""Architectures whose cheap values are kept, at most."""
_GENERATIONS = 30
_CHILDREN = 128
_INNER_DIRECTIONS = 64
_DIRECTIONS = 128
_POOL = 300
_SAMPLES = 32
_MINOR_ONLY = 0.1
"""Share of the evaluations, about, that may be new in minor genes only where others promise
something: their gains are small and sure, and would take most of a batch while little is known of
the other genes. `benchmarks.policy_search` varies more from seed to seed without this limit, and
finds less with none at all."""


class Guided:
    """Batches of the largest expected hypervolume improvement.

    Every objective that costs something has a predictor; cheap ones are known. For each batch,
    an evolution on the predictions finds a pool of candidates, values are drawn for the whole
    pool together, and candidates are taken one by one, each where it adds the most hypervolume to
    what was evaluated and to those taken before, on average over the draws. A draw beyond a bound
    adds nothing. See `AlgorithmFactory` for the arguments.
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
        # Fewer where cheap objectives, being known, say half of it
        first = 2 * population // (3 if problem.cheap is None else 5)
        self._queue = initial_population(problem, candidates, first, rng, initial)
        self._genes: Genes = np.zeros((0, problem.space.dimensions), dtype=np.int64)
        self._values: Floats = np.zeros((0, 0))
        self._predictors: list[QualityPredictor] = []
        self._number = RowHash(problem.space.dimensions)
        self._major = np.array([name not in problem.space.minor for name in problem.space.names])
        self._major_number = RowHash(int(self._major.sum()))
        self._cheap_of: dict[int, Floats] = {}
        self._elite: Genes = self._genes
        self._asked = 0
        self.expected_gain: float | None = None

    @property
    def batch(self) -> int:
        """Small at first, when every evaluation changes the predictions; see `Algorithm.batch`."""
        if self._queue:
            return min(len(self._queue), _BATCHES[1])
        return int(np.clip(self._asked // _PER_BATCH, _BATCHES[0], _BATCHES[1]))

    def ask(self, count: int) -> list[Architecture]:
        """The initial population, then what promises the most; see `Algorithm.ask`."""
        batch = self._next(count)
        self._asked += len(batch)
        return batch

    def _next(self, count: int) -> list[Architecture]:
        self.expected_gain = None
        if self._queue:
            batch, self._queue = self._queue[:count], self._queue[count:]
            return batch
        left = self._space.size - len(self._genes)
        if len(self._genes) < 2 or left <= count:
            return self._candidates.fill(count)
        with one_thread():
            promising = self._promising(count)
        batch = self._candidates.admit(promising, count, repair=False)
        if len(batch) < count:
            near = self._genes[non_dominated(self._values)]
            batch += self._candidates.fill(count - len(batch), near=near)
        return batch

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Keep what was evaluated; see `Algorithm.tell`."""
        if len(architectures) == 0:
            return
        genes = self._space.encode_all(architectures)
        self._genes = np.concatenate([self._genes, genes])
        self._values = np.concatenate([self._values.reshape(-1, values.shape[1]), values])

    def _promising(self, count: int) -> Genes:
        """Choice indices of up to `count` new candidates, best first."""
        learned = self._values.shape[1] - self._problem.cheap_width
        rows = _later_rows(len(self._genes), _LEARNED_FROM)
        genes = self._genes[rows]
        known = self._known(genes)
        while len(self._predictors) < learned:
            self._predictors.append(QualityPredictor(self._space))
        for column, predictor in enumerate(self._predictors):
            predictor.fit(genes, known, self._values[rows, column])
        violation = self._problem.violation(self._values)
        feasible = violation == 0
        objectives = self._values.shape[1]
        box = Box.within(self._values, feasible, self._problem.ceilings(objectives))
        inner = draw_directions(_INNER_DIRECTIONS, objectives, self._rng)

        def score(genes: Genes) -> Floats:
            values = self._predicted(genes)
            broken = self._problem.violation(values)
            return np.where(
                (broken > 0)[:, None], -10.0 - broken[:, None], lengths(box.gains(values), inner)
            )

        if self._space.size <= _LISTED:
            rows = enumerate_genes(self._space)
            scores = score(rows)
        else:
            rows, scores = evolve(
                self._space,
                score,
                self._start(feasible),
                self._rng,
                generations=_GENERATIONS,
                children=_CHILDREN,
            )
        fresh = ~np.isin(self._number(rows), self._number(self._genes))
        fresh &= self._within_cheap_bounds(rows)
        rows, scores = rows[fresh], scores[fresh]
        if len(rows) == 0:
            return rows
        pool = rows[_best_of_every_direction(scores, _POOL)]
        self._elite = pool
        chosen = pool[self._most_improvement(pool, box, feasible, count)]
        if count == 1 or len(self._problem.constraints) == len(self._problem.cheap_constraints):
            return chosen
        # A bound on what is learned hides what is wrongly expected to break it.
        rare = self._rarest(rows, scores)
        # Second, so that a batch which the budget cuts short is the beginning of a whole one.
        return np.concatenate([chosen[:1], rare[None], chosen[1:]])

    def _rarest(self, rows: Genes, scores: Floats) -> Genes:
        """Of the choices that were evaluated least of late, the most promising row that has one."""
        late = self._genes[len(self._genes) // 3 :]
        there, active = self._space.active_mask(late), self._space.active_mask(rows)
        promise = scores.max(axis=1)
        found: list[tuple[int, float, int]] = []
        for gene, choices in enumerate(self._space.cardinalities.tolist()):
            for choice in range(choices if choices > 1 else 0):
                holds = np.flatnonzero(active[:, gene] & (rows[:, gene] == choice))
                if len(holds):
                    best = int(holds[np.argmax(promise[holds])])
                    seen = int((there[:, gene] & (late[:, gene] == choice)).sum())
                    found.append((seen, -float(promise[best]), best))
        return np.asarray(rows[min(found)[2]], dtype=np.int64)

    def _start(self, feasible: Mask) -> Genes:
        """Where the inner evolution starts: the front, mutants of it, what was good before."""
        index = np.flatnonzero(feasible) if feasible.any() else np.arange(len(self._genes))
        front = self._genes[index[non_dominated(self._values[index])]]
        mutants = mutate(
            front[self._rng.integers(0, len(front), size=_CHILDREN)], self._space, self._rng
        )
        return np.concatenate([front, canonical(self._space, mutants), self._elite])

    def _predicted(self, genes: Genes) -> Floats:
        """All objectives as predicted, shape `(n, m + k)`."""
        known = self._known(genes)
        columns = [p.mean(p.inputs(genes, known)) for p in self._predictors]
        return np.hstack([np.stack(columns, axis=1), known])

    def _known(self, genes: Genes) -> Floats:
        """Cheap columns of canonical genes, shape `(n, k)`."""
        if self._problem.cheap_width == 0:
            return np.zeros((len(genes), 0))
        keys = self._number(genes).tolist()
        if len(self._cheap_of) > _REMEMBERED:
            self._cheap_of.clear()
        missing = [i for i, key in enumerate(keys) if key not in self._cheap_of]
        if missing:
            values = self._problem.cheap_values(self._space.decode_all(genes[missing]))
            for i, row in zip(missing, values, strict=True):
                self._cheap_of[keys[i]] = row
        return np.array([self._cheap_of[key] for key in keys])

    def _within_cheap_bounds(self, genes: Genes) -> Mask:
        """Which of canonical genes `(n, d)` meet the cheap bounds, shape `(n,)`."""
        bounds, names = self._problem.cheap_constraints, self._problem.cheap_names
        if not bounds:
            return np.ones(len(genes), dtype=np.bool_)
        return np.asarray(total_violation(self._known(genes), bounds, names) == 0)

    def _alike(self, genes: Genes) -> Genes:
        """One number per canonical row, the same for rows that differ in minor genes only."""
        there = np.where(self._space.active_mask(genes), genes, -1)
        return self._major_number(there[:, self._major])

    def _most_improvement(self, pool: Genes, box: Box, feasible: Mask, count: int) -> Genes:
        """Indices into the pool, one after the other."""
        known = self._known(pool)
        draws = [p.sample(p.inputs(pool, known), _SAMPLES, self._rng) for p in self._predictors]
        draws += [np.broadcast_to(column, (_SAMPLES, len(pool))) for column in known.T]
        values = np.stack(draws, axis=2)  # (samples, pool, m + k)
        objectives = values.shape[2]
        broken = self._problem.violation(values.reshape(-1, objectives)).reshape(values.shape[:2])
        directions = draw_directions(_DIRECTIONS, objectives, self._rng)
        reach = np.maximum(lengths(box.gains(values), directions), 0.0) ** objectives
        reach[broken > 0] = 0.0
        best = np.zeros(len(directions))
        if feasible.any():
            have = lengths(box.gains(self._values[feasible]), directions)
            best = np.maximum(have.max(axis=0), 0.0) ** objectives
        best = np.broadcast_to(best, (_SAMPLES, len(directions))).copy()
        tie = broken.mean(axis=0) * 1e-9
        alike = self._alike(pool)
        minor_only = np.isin(alike, self._alike(self._genes))
        # Of a whole batch, so that one which the budget cuts short is its beginning
        left = 0 if self._major.all() else int(self.batch * _MINOR_ONLY + self._rng.random())
        chosen: list[int] = []
        total, before = 0.0, float(best.mean())
        more = np.empty_like(reach)  # large: made once
        for _ in range(min(count, len(pool))):
            np.subtract(reach, best[:, None, :], out=more)
            gain = np.maximum(more, 0.0, out=more).mean(axis=(0, 2)) - tie
            gain[chosen] = -np.inf
            other = np.where(minor_only, -np.inf, gain)
            pick = int(np.argmax(gain if left > 0 or other.max() <= 0 else other))
            chosen.append(pick)
            left -= bool(minor_only[pick])
            minor_only |= alike == alike[pick]
            # Where nothing is hoped for, the tie alone is left of a gain; that is no loss.
            total += max(0.0, float(gain[pick]))
            np.maximum(best, reach[:, pick], out=best)
        self.expected_gain = total / before if before > 0 else None
        return np.array(chosen, dtype=np.int64)


def _later_rows(count: int, most: int) -> Genes:
    """At most `most` of `count` rows: the later half of them, and an even choice of the others."""
    if count <= most:
        return np.arange(count)
    early = np.linspace(0, count - most // 2 - 1, most - most // 2).round()
    return np.concatenate([early.astype(np.int64), np.arange(count - most // 2, count)])


def _best_of_every_direction(scores: Floats, count: int) -> Genes:
    """Indices of up to `count` rows that are among the best in some direction, ascending."""
    if len(scores) <= count:
        return np.arange(len(scores))
    order = np.argsort(-scores, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(scores))[:, None], axis=0)
    return np.sort(np.argsort(rank.min(axis=1), kind="stable")[:count])
