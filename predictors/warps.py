"""Scales on which a target is learned: as it is, or stretched near its best or its worst values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SHARES = (0.03, 0.1, 0.3, 1.0, 3.0)
_STEEPEST = 40.0


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A monotone map to a scale of mean 0 and deviation 1, on the data it was made for.

    `sign` 0 only shifts and scales. 1 takes the logarithm of the distance to `edge`, a value
    below all: differences near the smallest values count more. -1 does the same at the upper end.
    """

    sign: int
    edge: float
    center: float
    spread: float

    def forward(self, values: Floats) -> Floats:
        """Values on the learned scale, any shape."""
        return (self._stretch(values) - self.center) / self.spread

    def inverse(self, scaled: Floats) -> Floats:
        """Back to the unit of the values, any shape; finite for all finite arguments."""
        stretched = self.center + self.spread * scaled
        if self.sign == 0:
            return np.asarray(stretched)
        stretched = np.minimum(self.sign * stretched, _STEEPEST + abs(self.center))
        result: Floats = self.edge + self.sign * np.exp(stretched)
        return result

    def log_slope(self, values: Floats) -> Floats:
        """Logarithm of the derivative of `forward`: turns densities of one scale into another's."""
        slope = -np.log(self.spread)
        if self.sign == 0:
            return np.full(values.shape, slope)
        return np.asarray(slope - np.log(self.sign * (values - self.edge)))

    def _stretch(self, values: Floats) -> Floats:
        if self.sign == 0:
            return values
        return np.asarray(self.sign * np.log(self.sign * (values - self.edge)))


def warps(values: Floats) -> Iterator[Warp]:
    """Scales worth a try for these values, shape `(n,)`, which are not all equal.

    The edges lie at several distances beyond the extremes, in units of the distance between the
    extreme and the median.
    """
    yield _warp(values, 0, 0.0)
    low, middle, high = (float(q) for q in np.quantile(values, [0.0, 0.5, 1.0]))
    for share in _SHARES:
        if middle > low:
            yield _warp(values, 1, low - share * (middle - low))
        if high > middle:
            yield _warp(values, -1, high + share * (high - middle))
    if low > 0:
        yield _warp(values, 1, 0.0)


def _warp(values: Floats, sign: int, edge: float) -> Warp:
    plain = Warp(sign=sign, edge=edge, center=0.0, spread=1.0)
    stretched = plain.forward(values)
    spread = float(stretched.std())
    return Warp(sign=sign, edge=edge, center=float(stretched.mean()), spread=spread or 1.0)
