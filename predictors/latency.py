"""Latency from plain numbers that describe an architecture, learned from measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.cost_terms import CostTerms
from predictors.robust import Posterior, Prior, sample_posterior
from search_spaces.errors import UserError

Array = NDArray[np.float64]

SHARE_STD = 0.3
"""How far the constant's share of the latency, and a layer count's, may be from equal ones."""
COVERAGE, COVERAGE_Z = 0.90, 1.645
"""Share of the truth that lies within `COVERAGE_Z` standard deviations of a prediction."""
ERROR_DRAWS = 4000
DOUBTS = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 30)])
"""Relative standard deviations that the half width of an interval is tabulated at."""


class LatencyPredictor:
    """Learns latency from features of architectures and their measured latencies.

    A network is layers of some widths, so latency is a constant plus, for each number of layers,
    that number times a cost of one layer, which the widths change (`predictors.cost_terms`). Few
    widths matter on a device, and some rows were measured while it was slow: both are part of the
    model, whose uncertainty is averaged over, not settled (`predictors.robust`).

    Nothing has to be chosen: columns may be in any units and any order.
    """

    def __init__(self) -> None:
        self._model: _Model | None = None

    def fit(self, features: ArrayLike, latency: ArrayLike) -> Self:
        """Learn from measured architectures.

        Args:
            features: Shape `(n, d)`, finite numbers in any units.
            latency: Shape `(n,)`, above 0, in any unit.

        Raises:
            UserError: The shapes do not fit, there are fewer than 3 rows, or a value is not
                finite or a latency not above 0.
        """
        x, y = _checked(features), np.asarray(latency, dtype=np.float64)
        if y.shape != (len(x),):
            raise UserError(f"latency of shape {y.shape} must be ({len(x)},), one for each row")
        if len(x) < 3:
            raise UserError(f"{len(x)} measured architectures are too few to learn from; give 3")
        if not (np.isfinite(y).all() and y.min() > 0):
            raise UserError("a latency is not finite or not above 0; leave failed ones out")
        self._model = _learn(x, y)
        return self

    def predict(self, features: ArrayLike) -> tuple[Array, Array]:
        """Latency of architectures.

        Args:
            features: Shape `(k, d)`, columns as in `fit`.

        Returns:
            Mean and standard deviation, shape `(k,)` each, in the unit of `fit`. Nine of ten true
            values lie within 1.645 standard deviations.

        Raises:
            UserError: Nothing is fitted yet, or the features have another number of columns.
        """
        if self._model is None:
            raise UserError("this predictor has not learned anything yet; call fit first")
        x = _checked(features)
        columns = len(self._model.terms.center)
        if x.shape[1] != columns:
            raise UserError(f"features have {x.shape[1]} columns, those learned from {columns}")
        mean, half_width = self._model.predict(x)
        return mean, half_width * mean / COVERAGE_Z


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A fit: weights of terms, how sure they are, and how wide an interval has to be."""

    terms: CostTerms
    unit: float
    """Median of the measured latencies."""
    weights: Array
    root: Array
    """Shape `(p, p)`; `root.T @ root` is the covariance of the weights."""
    low: float
    """No prediction is below this, in units."""
    half_widths: Array
    """Relative half widths of the intervals at `DOUBTS`."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean, in the unit of the latencies, and relative half width."""
        terms = self.terms(x)
        mean = np.maximum(terms @ self.weights, self.low)
        doubt = np.linalg.norm(terms @ self.root.T, axis=1) / mean
        return mean * self.unit, np.interp(doubt, DOUBTS, self.half_widths)


def _checked(features: ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UserError(f"features of shape {x.shape} must be (n, d), a row per architecture")
    if not np.isfinite(x).all():
        raise UserError("a feature is not a finite number; leave such rows out")
    return x


def _learn(x: Array, y: Array) -> _Model:
    unit = float(np.median(y))
    terms = CostTerms.of(x, y)
    free = 1 + len(terms.counts)
    prior = Prior(
        mean=np.full(free, 1 / free), std=np.full(free, SHARE_STD), held=terms.held_factors
    )
    rows = terms(x) * (unit / y)[:, None]
    posterior = sample_posterior(rows, prior)
    weights = posterior.weights.mean(axis=0)
    draws = posterior.weights - weights
    half_widths = _half_widths(posterior)
    covariance = draws.T @ draws / len(draws)
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    doubt = np.linalg.norm(rows @ root.T, axis=1)
    held_out = _left_out(rows, posterior)
    misses = np.abs(1 / held_out - 1) / np.interp(doubt, DOUBTS, half_widths)
    # The quantile of a new value among n + 1, as in conformal prediction
    rank = min(len(y), int(np.ceil(COVERAGE * (len(y) + 1))))
    half_widths = half_widths * np.sort(misses)[rank - 1]
    return _Model(
        terms=terms,
        unit=unit,
        weights=weights,
        root=root,
        low=0.1 * float(y.min()) / unit,
        half_widths=half_widths,
    )


def _left_out(rows: Array, posterior: Posterior) -> Array:
    """Prediction of each row, relative to it, by a model that has not seen it.

    Draws are weighted by the inverse of how likely they make the row (importance sampling).
    """
    predicted = rows @ posterior.weights.T  # (n, draws)
    doubt = 1 / posterior.likelihood(1 - predicted)
    result: Array = (predicted * doubt).sum(axis=1) / doubt.sum(axis=1)
    return result


def _half_widths(posterior: Posterior) -> Array:
    """Of the intervals that hold nine of ten values, by how unsure a prediction is, relative."""
    draws = len(posterior.scale)
    error = np.minimum(posterior.draw_errors(-(-ERROR_DRAWS // draws)), 0.8)
    deviation = np.random.default_rng(1).standard_normal(len(error))
    measured = 1 / (1 - error)
    return np.array(
        [np.quantile(np.abs(measured * (1 + d * deviation) - 1), COVERAGE) for d in DOUBTS]
    )
