"""AGE-MOEA-II: survival by a front's own geometry (Panichella, 2022, 10.1145/3512290.3528732).

The front is taken for a curved surface, sum x^p = 1. The exponent is fitted to its middle, and
distances between points are measured along the surface. Written here, since pymoo's needs a
compiler at run time (numba), and seconds for it.
"""

from __future__ import annotations

import numpy as np

from nas.search.evolution import random_pairs, winners
from nas.search.pareto import Indices, non_dominated
from nas.search.problem import Floats

_TINY = 1e-8
_STEPS = 100
_EXPONENTS = (0.1, 20.0)
"""Beyond these a fitted exponent says nothing: below it counts as 1, above as the limit."""


class GeometrySelection:
    """Feasibility, rank, then diversity and proximity on the front. See `SelectionFactory`."""

    def __init__(self, *, size: int, objectives: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._living: Indices = np.zeros(0, dtype=np.int64)
        self._keys: list[Floats] = []

    def survive(self, values: Floats, violation: Floats, new: Indices) -> None:
        """See `Selection.survive`."""
        everyone = np.concatenate([self._living, new])
        feasible = everyone[violation[everyone] == 0]
        rank, score = ranks_and_scores(values[feasible], self._size)
        order = np.lexsort((-score, rank))[: self._size]
        broken = everyone[violation[everyone] > 0]
        by_violation = np.argsort(violation[broken], kind="stable")[: self._size - len(order)]
        self._living = np.concatenate([feasible[order], broken[by_violation]])
        filler = np.zeros(len(by_violation))
        self._keys = [
            violation[self._living],
            np.concatenate([rank[order].astype(np.float64), filler]),
            np.concatenate([-score[order], filler]),
        ]

    @property
    def living(self) -> Indices:
        """See `Selection.living`."""
        return self._living

    def pairs(self, count: int) -> Indices:
        """Tournaments by feasibility, rank and survival score."""
        pairs = random_pairs(len(self._living), 2 * count, self._rng)
        return self._living[winners(pairs, self._keys, self._rng)].reshape(count, 2)


def ranks_and_scores(values: Floats, wanted: int) -> tuple[Indices, Floats]:
    """Rank of every point, and its survival score within the rank (larger is better).

    Args:
        values: Objectives, `(n, m)`.
        wanted: Points beyond the front that holds the last of so many are not ranked further.

    Returns:
        Ranks `(n,)` from 0, and scores `(n,)`.
    """
    rank = np.full(len(values), len(values), dtype=np.int64)
    score = np.zeros(len(values))
    left = np.arange(len(values))
    ideal, scale, exponent = np.zeros(0), np.ones(0), 1.0
    level = 0
    while len(left) and len(values) - len(left) < wanted:
        front = left[non_dominated(values[left])]
        rank[front] = level
        if level == 0:
            ideal = values[front].min(axis=0)
            score[front], scale, exponent = _first_front(values[front] - ideal)
        else:
            distance = _norm((values[front] - ideal) / scale, exponent)
            score[front] = 1.0 / np.maximum(distance, _TINY)
        left = np.setdiff1d(left, front)
        level += 1
    return rank, score


def _first_front(front: Floats) -> tuple[Floats, Floats, float]:
    """Scores `(f,)` of a front whose ideal point is the origin, its scale `(m,)`, its exponent."""
    count, objectives = front.shape
    if count < objectives:
        return np.zeros(count), _nonzero(front.max(axis=0)), 1.0
    extremes = _extremes(front / _nonzero(front.max(axis=0)))  # whatever the units
    scale = _scale(front, extremes)
    front = front / scale
    exponent = _exponent(front, extremes)
    proximity = _norm(front, exponent)
    distances = np.maximum(_geodesic(front, exponent), _TINY)
    distances /= np.where(proximity < _TINY, 1.0, proximity)[:, None]
    score = np.zeros(count)
    score[extremes] = np.inf
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[extremes] = True
    # Nearest and second nearest of those chosen so far, for every point.
    near = np.sort(np.column_stack([distances[:, chosen], np.full(count, np.inf)]), axis=1)[:, :2]
    while not chosen.all():
        diversity = np.where(np.isfinite(near), near, 0.0).sum(axis=1)
        best = int(np.argmax(np.where(chosen, -np.inf, diversity)))
        score[best] = diversity[best]
        chosen[best] = True
        near = np.sort(np.column_stack([near, distances[:, best]]), axis=1)[:, :2]
    return score, scale, exponent


def _extremes(front: Floats) -> Indices:
    """The point nearest to each axis, no point twice; all points where there are so few."""
    count, objectives = front.shape
    if count <= objectives:
        return np.arange(count, dtype=np.int64)
    found: list[int] = []
    for axis in 1e-6 + np.eye(objectives):
        along = front @ axis / (axis @ axis)
        distance = ((front - along[:, None] * axis) ** 2).sum(axis=1)
        distance[found] = np.inf
        found.append(int(np.argmin(distance)))
    return np.array(found, dtype=np.int64)


def _scale(front: Floats, extremes: Indices) -> Floats:
    """Intercepts of the plane through the extremes; the largest values where it makes no sense."""
    if len(extremes) == front.shape[1]:
        try:
            plane = np.linalg.solve(front[extremes], np.ones(front.shape[1]))
        except np.linalg.LinAlgError:
            plane = np.zeros(front.shape[1])
        if (plane > 0).all() and np.isfinite(plane).all() and np.isfinite(1 / plane).all():
            return np.asarray(1.0 / plane)
    return _nonzero(front.max(axis=0))


def _exponent(front: Floats, extremes: Indices) -> float:
    """The p with sum x^p = 1 at the point nearest to the origin, by Newton's method."""
    distance = np.sqrt((front**2).sum(axis=1))
    distance[extremes] = np.inf
    point = front[int(np.argmin(distance))]
    logs = np.log(point[point > 0] + 1e-10)
    p = 1.0
    for _ in range(_STEPS):
        powers = np.exp(np.minimum(p * logs, 700.0))
        total, slope = powers.sum(), (powers * logs).sum()
        if total <= 0 or slope == 0:
            return 1.0
        step = np.log(total) / (slope / total)
        p -= float(step)
        if abs(step) <= 1e-3:
            break
    if not np.isfinite(p) or p <= _EXPONENTS[0]:
        return 1.0
    return min(p, _EXPONENTS[1])


def _geodesic(front: Floats, exponent: float) -> Floats:
    """Distances along the surface, by way of the projected middle, `(f, f)`."""
    surface = _projected(front, exponent)
    a, b = surface[:, None, :], surface[None, :, :]
    if 0.95 < exponent < 1.05:  # a plane
        return np.asarray(np.sqrt(((a - b) ** 2).sum(axis=2)))
    middle = _projected((a + b) / 2, exponent)
    there = np.sqrt(((a - middle) ** 2).sum(axis=2))
    return np.asarray(there + np.sqrt(((b - middle) ** 2).sum(axis=2)))


def _projected(points: Floats, exponent: float) -> Floats:
    length = _norm(points, exponent)
    return np.asarray(points / _nonzero(length)[..., None])


def _norm(points: Floats, exponent: float) -> Floats:
    return np.asarray((np.maximum(points, 0.0) ** exponent).sum(axis=-1) ** (1.0 / exponent))


def _nonzero(values: Floats) -> Floats:
    return np.where(values == 0, 1.0, values)
