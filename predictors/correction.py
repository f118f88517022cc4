"""What a sum over blocks is wrong by: a factor for each kind of row, and a smooth rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from predictors.protocol import Floats

TERMS = ("fixed", "attention", "ffn")
ALL_STD, EACH_STD = 10.0, 0.1
"""How far from 1 the factor of all rows may be, and how far from it, as a share, that of a kind."""
SMOOTH_STD, LENGTH = 0.03, 1.0
"""Share of the latency that is neither, and over which logarithm of a place it changes."""
LEAST_NOISE = 0.005
"""Relative error of each subnet that nothing explains, at least."""
LEAST_FACTOR, MOST_SMOOTH = 0.1, 0.5
"""Noise may ask for less, and for latencies below 0; and for more."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Corrects sums over blocks; as it is made, it leaves them as they are."""

    coefficients: tuple[float, ...] = (1.0,) * len(TERMS)
    """Factor of the fixed, the attention and the FFN rows."""
    places: tuple[tuple[float, ...], ...] = ()
    """Of each subnet that it was fitted on."""
    weights: tuple[float, ...] = ()
    """Of each of them in the smooth rest."""

    @classmethod
    def fit(
        cls, terms: Floats, places: Floats, latency_ms: Floats, noise: float
    ) -> tuple[Correction, Floats]:
        """Learn from whole subnets.

        One Gaussian process on the relative error: linear in the terms, whose factors are 1 as far
        as nothing is known, and smooth in the places (Rasmussen and Williams, Gaussian Processes
        for Machine Learning, 2.2 and 2.7).

        Args:
            terms: Sums of the rows of each kind, shape `(n, 3)`, ms.
            places: What the rest is smooth in, shape `(n, p)`: logarithms of sizes.
            latency_ms: Measured, shape `(n,)`.
            noise: Relative error of what was measured.

        Returns:
            The correction, and the relative error of each subnet's prediction by one that was
            fitted without it, shape `(n,)`.
        """
        shares = terms / latency_ms[:, None]
        each = EACH_STD / float(np.median(shares.sum(axis=1)))
        rest = _similarity(places, places) + max(noise, LEAST_NOISE) ** 2 * np.eye(len(terms))
        factors = np.ones(len(TERMS))
        free = np.ones(len(TERMS), dtype=np.bool_)
        while True:
            x = shares[:, free]
            prior = ALL_STD**2 + each**2 * np.eye(x.shape[1])
            inverse = np.linalg.inv(x @ prior @ x.T + rest)
            factors[free] = 1.0
            weights = inverse @ (1 - shares @ factors)
            factors[free] += prior @ x.T @ weights
            # Those that would go below stay there, and the others are fitted again
            low = free & (factors < LEAST_FACTOR)
            if not low.any():
                break
            factors[low] = LEAST_FACTOR
            free &= ~low
        found = cls(
            coefficients=tuple(np.round(factors, 6).tolist()),
            places=tuple(map(tuple, np.round(places, 6).tolist())),
            weights=tuple(np.round(weights, 6).tolist()),
        )
        return found, -weights / np.diag(inverse)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Correction:
        """What `to_json` made."""
        return cls(
            coefficients=tuple(record["coefficients"]),
            places=tuple(map(tuple, record.get("places", ()))),
            weights=tuple(record.get("weights", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """As it stands in `table.json`."""
        return {
            "kind": "factors",
            "terms": list(TERMS),
            "coefficients": list(self.coefficients),
            "places": [list(place) for place in self.places],
            "weights": list(self.weights),
        }

    def __call__(self, terms: Floats, places: Floats) -> Floats:
        """Corrected latencies in ms, shape `(n,)`, of terms and places as in `fit`."""
        latency: Floats = terms @ np.array(self.coefficients)
        if self.weights:
            rest = _similarity(places, np.array(self.places)) @ np.array(self.weights)
            latency = latency / (1 - np.clip(rest, -MOST_SMOOTH, MOST_SMOOTH))
        return latency


def _similarity(one: Floats, other: Floats) -> Floats:
    """Covariance of the smooth rest, shape `(n, m)`."""
    distance = ((one[:, None, :] - other[None]) / LENGTH) ** 2
    covariance: Floats = SMOOTH_STD**2 * np.exp(-distance.sum(axis=2) / 2)
    return covariance
