"""Latency from plain numbers that describe an architecture, learned from measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.accuracy import mape
from search_spaces.errors import UserError

Array = NDArray[np.float64]

MAX_COUNT = 64
"""Whole numbers up to this one may be a number of layers."""
MAX_COUNTS = 2
"""Columns that are taken for numbers of layers, such as those of an encoder and a decoder."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Strengths of the belief that widths do not matter, against one relative error."""
SECOND_ORDER = 4.0
"""How much less likely it is that two widths matter together."""
BASE_PENALTY = 1e-6
ITERATIONS = 8
FOLDS = 10
COVERAGE, COVERAGE_Z = 0.90, 1.645
"""Share of the truth that lies within `COVERAGE_Z` standard deviations of a prediction."""


class LatencyPredictor:
    """Learns latency from features of architectures and their measured latencies.

    A network is layers of some widths, so latency is a constant plus, for each number of layers,
    that number times a cost of one layer, which the widths change a little. Constant and number of
    layers are fitted freely; what widths do is fitted against the belief that it is nothing, which
    the rows have to overcome (ridge). How strong that belief is, and whether widths matter in
    pairs, is chosen by cross-validation.

    What is made small is the mean of the absolute relative errors, by reweighted least squares: a
    device that was slower for a while leaves outliers, which a squared error would follow.

    Which columns are numbers of layers is seen from the data: whole numbers up to 64. Without any,
    the model is linear or quadratic in the features.
    """

    def __init__(self) -> None:
        self._model: _Model | None = None
        self._relative_std = 0.0

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
        counts = _count_columns(x, y)
        errors = {}
        held_out = {}
        for order in (1, 2):
            for penalty in PENALTIES:
                predicted = _cross_validated(x, y, counts, order, penalty)
                held_out[order, penalty] = np.abs(predicted / y - 1)
                errors[order, penalty] = mape(predicted, y)
        best = min(errors, key=lambda setting: errors[setting])
        self._model = _fit(x, y, counts, *best)
        # The quantile of a new value among n + 1, as in conformal prediction
        share = min(1.0, COVERAGE * (len(y) + 1) / len(y))
        self._relative_std = float(np.quantile(held_out[best], share)) / COVERAGE_Z
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
        if x.shape[1] != len(self._model.center):
            raise UserError(
                f"features have {x.shape[1]} columns, those learned from {len(self._model.center)}"
            )
        mean = self._model.predict(x)
        return mean, self._relative_std * mean


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Weights of the terms of one fit."""

    counts: tuple[int, ...]
    order: int
    center: Array
    """Means of the columns, shape `(d,)`."""
    spread: Array
    """Standard deviations of the columns, shape `(d,)`; 0 where a column says nothing."""
    weights: Array
    low: float
    """No prediction is below this."""

    def predict(self, x: Array) -> Array:
        terms = _terms(x, self.counts, self.order, self.center, self.spread)
        predicted: Array = np.maximum(np.concatenate(terms[:2], axis=1) @ self.weights, self.low)
        return predicted


def _checked(features: ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UserError(f"features of shape {x.shape} must be (n, d), a row per architecture")
    if not np.isfinite(x).all():
        raise UserError("a feature is not a finite number; leave such rows out")
    return x


def _count_columns(x: Array, y: Array) -> tuple[int, ...]:
    """Columns that may be numbers of layers; the ones that go with latency most, if many."""
    found = [
        (-abs(float(np.corrcoef(column, y)[0, 1])), index)
        for index, column in enumerate(x.T)
        if column.min() >= 1 and column.max() <= MAX_COUNT and np.ptp(column) > 0
        if np.array_equal(column, np.round(column)) and np.ptp(y) > 0
    ]
    return tuple(index for _, index in sorted(found)[:MAX_COUNTS])


def _terms(
    x: Array, counts: tuple[int, ...], order: int, center: Array, spread: Array
) -> tuple[Array, Array, Array]:
    """Terms that are free, shape `(n, b)`, those that are held back, `(n, f)`, and how much."""
    z = np.divide(x - center, spread, out=np.zeros_like(x), where=spread > 0)  # (n, d)
    widths = [j for j in range(x.shape[1]) if j not in counts and spread[j] > 0]
    layers = [x[:, c] / center[c] for c in counts]
    one = np.ones(len(x))
    held = [(1.0, z[:, j]) for j in widths]
    held += [(1.0, layer * z[:, j]) for layer in layers for j in widths]
    held += [(1.0, layer**2) for layer in layers]
    if order == 2:
        held += [
            (SECOND_ORDER, layer * z[:, i] * z[:, j])
            for layer in layers or [one]
            for place, i in enumerate(widths)
            for j in widths[place:]
        ]
    free = np.stack([one, *layers], axis=1)
    fine = np.stack([term for _, term in held], axis=1) if held else np.empty((len(x), 0))
    return free, fine, np.array([factor for factor, _ in held])


def _fit(x: Array, y: Array, counts: tuple[int, ...], order: int, penalty: float) -> _Model:
    center, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-9 * np.abs(center), spread, 0.0)
    free, fine, factors = _terms(x, counts, order, center, spread)
    scale = float(np.median(y))
    # Rows divided by their latency: the error of `relative @ weights` against 1 is relative
    relative = np.concatenate([free, fine], axis=1) * (scale / y)[:, None]
    ridge = np.concatenate([np.full(free.shape[1], BASE_PENALTY), penalty * factors]) / len(y)
    trust = np.ones(len(y))
    for _ in range(ITERATIONS):
        trust /= trust.sum()
        weighted = relative * trust[:, None]
        weights = np.linalg.solve(weighted.T @ relative + np.diag(ridge), weighted.sum(axis=0))
        errors = np.abs(relative @ weights - 1)
        trust = 1 / np.maximum(errors, np.median(errors) + 1e-6)
    return _Model(
        counts=counts,
        order=order,
        center=center,
        spread=spread,
        weights=weights * scale,
        low=0.1 * float(y.min()),
    )


def _cross_validated(
    x: Array, y: Array, counts: tuple[int, ...], order: int, penalty: float
) -> Array:
    """A prediction for every row by a model that has not seen it."""
    fold = np.random.default_rng(0).permutation(len(y)) % min(FOLDS, len(y))
    predicted = np.empty_like(y)
    for one in range(fold.max() + 1):
        rest, out = fold != one, fold == one
        predicted[out] = _fit(x[rest], y[rest], counts, order, penalty).predict(x[out])
    return predicted
