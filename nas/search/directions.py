"""Hypervolume as an average over directions, for any number of objectives.

From the worst corner of a box, every direction meets the dominated region up to some length; the
mean of length ** m is the hypervolume, up to a constant (Zhang and Golovin, arXiv:2006.04655).
Unlike the hypervolume itself this is a maximum over points: what a point adds is cheap to know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas.search.pareto import Floats, non_dominated

Mask = npt.NDArray[np.bool_]

_MARGIN = 0.1
"""The corner lies beyond the worst of the front by this share of the front's range."""
_FAR = 100.0
"""The worst is at most so many times as far from the best as the median."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where improvements count: from a worst corner to the best values so far."""

    ideal: Floats
    """Best value of every objective, shape `(m,)`."""
    reference: Floats
    """Worst value that is still of interest, shape `(m,)`; above `ideal`."""

    @classmethod
    def around(cls, values: Floats) -> Box:
        """A box a little larger than the front of some values `(n, m)`, n at least 1."""
        front = values[non_dominated(values)]
        ideal, nadir = front.min(axis=0), _typical_worst(front)
        # One point alone spans nothing: all that was seen gives the scale.
        everything = values.max(axis=0) - ideal
        side = np.where(nadir > ideal, nadir - ideal, everything)
        side = np.where(side > 0, side, np.maximum(1.0, np.abs(ideal)))
        return cls(ideal=ideal, reference=np.where(nadir > ideal, nadir, ideal) + _MARGIN * side)

    @classmethod
    def within(cls, values: Floats, feasible: Mask, ceilings: Floats) -> Box:
        """A box around the front within the bounds that reaches out to the bounds.

        The front that was found first says little of how far the front goes: both ends of the
        sizes may be outside the bounds, and what is best within them near the bound on size. A
        bound that nothing comes near is as far as the worst value.

        Args:
            values: All that is known, `(n, m)`, n at least 1.
            feasible: Which of them are within the bounds, `(n,)`.
            ceilings: The upper bound of each objective, `(m,)`; infinity without one.
        """
        if not feasible.any():
            return cls.around(values)
        found = cls.around(values[feasible])
        if not np.isfinite(ceilings).any():
            return found
        worst = np.maximum(cls.around(values).reference, _typical_worst(values))
        corner = np.where(np.isfinite(ceilings), np.minimum(worst, ceilings), -np.inf)
        return replace(found, reference=np.maximum(found.reference, corner))

    def gains(self, values: Floats) -> Floats:
        """How far values `(*batch, m)` are better than the worst corner; 1 is the best one."""
        result: Floats = (self.reference - values) / (self.reference - self.ideal)
        return result


def _typical_worst(values: Floats) -> Floats:
    """The worst of every column of values `(n, m)`, shape `(m,)`, n at least 1.

    A failure that was given a large value does not make all others look alike.
    """
    low, middle, high = values.min(axis=0), np.median(values, axis=0), values.max(axis=0)
    return np.where(middle > low, np.minimum(high, low + _FAR * (middle - low)), high)


def draw_directions(count: int, objectives: int, rng: np.random.Generator) -> Floats:
    """Directions with all components positive, evenly spread, shape `(count, objectives)`."""
    if objectives == 1:
        return np.ones((1, 1))
    if objectives == 2:
        angle = (np.arange(count) + rng.random(count)) / count * (np.pi / 2)
        drawn = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        drawn = np.abs(rng.standard_normal((count, objectives)))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    # A direction along an axis would divide by 0.
    return np.asarray(np.maximum(drawn, 1e-6))


def lengths(gains: Floats, directions: Floats) -> Floats:
    """How far along every direction a point reaches, for gains `(*batch, m)`; negative outside.

    Returns:
        Shape `(*batch, directions)`.
    """
    result: Floats = gains[..., :1] / directions[:, 0]
    for objective in range(1, directions.shape[1]):
        np.minimum(result, gains[..., objective, None] / directions[:, objective], out=result)
    return result
