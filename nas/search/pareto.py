"""What dominates what: fronts, hypervolume, and a spread-out choice from a front.

All objectives are minimised. Equal points do not dominate each other, so a front keeps them all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def non_dominated(values: npt.ArrayLike) -> Indices:
    """Indices of the points that no other point dominates.

    A point dominates another if it is nowhere worse and somewhere better. Points with equal
    values are all in or all out, so the answer does not depend on the order of the points.

    Args:
        values: Objectives, shape `(n, m)`, finite, minimised.

    Returns:
        Indices into `values`, ascending, shape `(f,)`.

    Raises:
        ValueError: Not two-dimensional, or not finite.
    """
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"values have shape {points.shape}, not (n, m)")
    if not np.isfinite(points).all():
        raise ValueError("values hold NaN or infinity; a front of them is not defined")
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    # In lexicographic order a point can only be dominated by an earlier one.
    kept = np.zeros(len(unique), dtype=bool)
    left = np.arange(len(unique))
    while len(left):
        best, rest = left[0], left[1:]
        kept[best] = True
        left = rest[(unique[rest] < unique[best]).any(axis=1)]
    return np.flatnonzero(kept[inverse.reshape(-1)]).astype(np.int64)


def hypervolume(values: npt.ArrayLike, *, ideal: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Share of the box between `ideal` and `reference` that the points dominate.

    Args:
        values: Objectives, shape `(n, m)`; points that are not better than `reference` in every
            objective add nothing.
        ideal: Best corner of the box, shape `(m,)`; better values count as this one.
        reference: Worst corner of the box, shape `(m,)`.

    Returns:
        Hypervolume (Zitzler and Thiele, 1998) after scaling the box to side 1, in `[0, 1]`.
    """
    points = np.asarray(values, dtype=np.float64)
    low, high = np.asarray(ideal, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    side = np.where(high > low, high - low, 1.0)
    scaled = np.maximum((points - low) / side, 0.0)
    scaled = scaled[(scaled < 1.0).all(axis=1)]
    if len(scaled) == 0:
        return 0.0
    if scaled.shape[1] == 1:
        return float(1.0 - scaled.min())
    return _hypervolume_to(scaled, np.ones(scaled.shape[1]))


def select_front(values: npt.ArrayLike, front: Sequence[int] | Indices, count: int) -> Indices:
    """Choose few points that stand for a whole front.

    The best point of every objective is kept; then, one by one, the point that adds the most
    hypervolume. Deterministic: of equal choices the first in `front` wins.

    Args:
        values: Objectives, shape `(n, m)`.
        front: Indices of non-dominated points, as `non_dominated` gives them.
        count: How many to choose, at least 1.

    Returns:
        At most `count` of `front`, ascending; points with equal values are chosen once.
    """
    if count < 1:
        raise ValueError(f"count {count} is not at least 1")
    indices = np.asarray(front, dtype=np.int64)
    if len(indices) == 0:
        return indices
    points = np.asarray(values, dtype=np.float64)[indices]
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    indices, points = indices[first], points[first]
    if len(indices) <= count:
        return np.sort(indices)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    # Beyond the worst corner, so that the extremes of the front span some volume themselves.
    corner = np.full(scaled.shape[1], 1.1)
    chosen: list[int] = []
    for objective in range(scaled.shape[1]):
        others = np.delete(scaled, objective, axis=1).sum(axis=1)
        best = int(np.lexsort((others, scaled[:, objective]))[0])
        if best not in chosen and len(chosen) < count:
            chosen.append(best)
    while len(chosen) < count:
        left = [i for i in range(len(scaled)) if i not in chosen]
        volumes = [_hypervolume_to(scaled[[*chosen, i]], corner) for i in left]
        chosen.append(left[int(np.argmax(volumes))])
    return np.sort(indices[chosen])


def _hypervolume_to(points: Floats, corner: Floats) -> float:
    if points.shape[1] == 2:
        # The staircase itself; a call into the library costs more than the sum.
        ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
        floor = np.minimum.accumulate(ordered[:, 1])
        ceiling = np.concatenate([corner[1:], floor[:-1]])
        return float(((corner[0] - ordered[:, 0]) * (ceiling - floor)).sum())
    from pymoo.indicators.hv import HV  # imported here: costs a quarter of a second

    return float(HV(ref_point=corner).do(points))
