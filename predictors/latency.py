"""Latency from plain numbers that describe an architecture, learned from measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.cost_terms import CostTerms
from predictors.design import choose_rows
from predictors.robust import SCALE, SPARSITY, Posterior, Prior, sample_posterior
from search_spaces.errors import UserError

Array = NDArray[np.float64]

SHARE_STD = 0.3
"""How far the constant's share of the latency, and a layer count's, may be from equal ones."""
ROUGHLY = 0.2
"""Relative error of the latency that weights are told in units of."""
EACH = 0.05
"""How large each width's weight may be where nothing says that few matter."""
UNHEARD_OF, MAX_SIZE = 0.2, 10.0
"""How large a weight may be of which the source knows nothing; how much larger if it is there."""
FACTOR, SMALL = 2.0, 0.002
"""How far from the source's a weight may be, in times its own size; and if that is nothing."""
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

    def fit(
        self, features: ArrayLike, latency: ArrayLike, *, source: LatencyPredictor | None = None
    ) -> Self:
        """Learn from measured architectures.

        Args:
            features: Shape `(n, d)`, finite numbers in any units.
            latency: Shape `(n,)`, above 0, in any unit.
            source: What was learned on another device, from the same columns. It says which widths
                matter, and how; whether to believe it is decided by how well it foretells rows
                that it has not seen.

        Raises:
            UserError: The shapes do not fit, there are fewer than 3 rows, a value is not finite
                or a latency not above 0, or the source has not learned or has other columns.
        """
        x, y = _checked(features), np.asarray(latency, dtype=np.float64)
        if y.shape != (len(x),):
            raise UserError(f"latency of shape {y.shape} must be ({len(x)},), one for each row")
        if len(x) < 3:
            raise UserError(f"{len(x)} measured architectures are too few to learn from; give 3")
        if not (np.isfinite(y).all() and y.min() > 0):
            raise UserError("a latency is not finite or not above 0; leave failed ones out")
        self._model = _learn(x, y, None if source is None else source._fitted(x))
        return self

    @staticmethod
    def propose(
        pool: ArrayLike, count: int, *, source: LatencyPredictor | None = None
    ) -> NDArray[np.int64]:
        """Which architectures to measure on a device of which nothing is known yet.

        Learning from these takes fewer than learning from random ones: they differ as much as
        they can in all that may matter (`predictors.design`).

        Args:
            pool: Features of what could be measured, shape `(n, d)`; what is to be predicted
                should be like it.
            count: How many to measure.
            source: What `fit` will be given.

        Returns:
            Indices of rows of `pool`, shape `(count,)`, in ascending order.

        Raises:
            UserError: The pool has fewer rows, a value is not finite, or the source has not
                learned or has other columns.
        """
        x = _checked(pool)
        model = None if source is None else source._fitted(x)
        terms = CostTerms.of(x) if model is None else model.columns.terms
        columns = _Columns(terms=terms.for_rows(count), source=model)
        beliefs = columns.priors()
        # What the source knows nothing of may matter all the same
        variance = (beliefs[0].variance + beliefs[-1].variance) / 2
        rows = columns(x)
        # Errors are relative, so a row counts by what its latency is expected to be
        if model is None:
            expected = rows[:, : columns.free] @ beliefs[0].mean
        else:
            expected = model.predict(x)[0] / model.unit
        return choose_rows(rows / expected[:, None], count, precision=SCALE**2 / variance)

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
        x = _checked(features)
        mean, half_width = self._fitted(x).predict(x)
        return mean, half_width * mean / COVERAGE_Z

    def _fitted(self, x: Array) -> _Model:
        """The model, if it can predict for `x`."""
        if self._model is None:
            raise UserError("this predictor has not learned anything yet; call fit first")
        columns = len(self._model.columns.terms.center)
        if x.shape[1] != columns:
            raise UserError(f"features have {x.shape[1]} columns, those learned from {columns}")
        return self._model


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What latency is a weighted sum of: terms and, with a source, what widths do there."""

    terms: CostTerms
    source: _Model | None

    @property
    def free(self) -> int:
        """Number of terms that are not held; what comes from the source is the last of them."""
        return 1 + len(self.terms.counts) + (self.source is not None)

    def __call__(self, x: Array) -> Array:
        """Shape `(n, p)` for features of shape `(n, d)`."""
        terms = self.terms(x)
        if self.source is None:
            return terms
        return np.insert(terms, self.free - 1, self.source.width_effects(x), axis=1)

    def priors(self) -> list[Prior]:
        """The beliefs without the source, and those with it, if there is one.

        Few widths matter; without a number of layers, all may. With a source, those that matter
        are most likely its own; or each does what it does there, times a factor of its own.
        """
        own = 1 + len(self.terms.counts)
        mean, std = np.full(own, 1 / own), np.full(own, SHARE_STD)
        held = self.terms.held_factors
        if self.source is None:
            few = Prior(mean=mean, std=std, held=held)
            all_of_them = Prior(mean=mean, std=std, held=EACH * held, sparse=False)
            return [few] if self.terms.counts else [few, all_of_them]
        there = self.source.weights[self.source.columns.free :][: len(held)]
        size = UNHEARD_OF + np.minimum(np.abs(there) / SPARSITY, MAX_SIZE)
        mean_with, std_with = np.append(mean, 1.0), np.append(std, 1.0)
        factors = np.hypot(FACTOR * there, SMALL)
        return [
            Prior(mean=np.append(mean, 0.0), std=np.append(std, 1e-3), held=held),
            Prior(mean=mean_with, std=std_with, held=held * size),
            Prior(mean=mean_with, std=std_with, held=factors, sparse=False),
        ]


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A fit: weights of terms, how sure they are, and how wide an interval has to be."""

    columns: _Columns
    unit: float
    """About the latency of an average architecture."""
    weights: Array
    root: Array
    """Shape `(p, p)`; `root.T @ root` is the covariance of the weights."""
    low: float
    """No prediction is below this, in units."""
    half_widths: Array
    """Relative half widths of the intervals at `DOUBTS`."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean, in the unit of the latencies, and relative half width."""
        terms = self.columns(x)
        mean = np.maximum(terms @ self.weights, self.low)
        doubt = np.linalg.norm(terms @ self.root.T, axis=1) / mean
        return mean * self.unit, np.interp(doubt, DOUBTS, self.half_widths)

    def width_effects(self, x: Array) -> Array:
        """What widths add to the latency or take from it, shape `(n,)`, in units."""
        free = 1 + len(self.columns.terms.counts)
        return np.asarray(self.columns(x)[:, free:] @ self.weights[free:])


def _checked(features: ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UserError(f"features of shape {x.shape} must be (n, d), a row per architecture")
    if not np.isfinite(x).all():
        raise UserError("a feature is not a finite number; leave such rows out")
    return x


def _learn(x: Array, y: Array, source: _Model | None) -> _Model:
    terms = CostTerms.of(x, y) if source is None else source.columns.terms.for_rows(len(x))
    columns = _Columns(terms=terms, source=source)
    values = columns(x)
    unit = _unit(values[:, : 1 + len(terms.counts)], y)
    rows = values * (unit / y)[:, None]
    posterior = _believed(
        rows, [chain for prior in columns.priors() for chain in sample_posterior(rows, prior)]
    )
    weights = posterior.weights.mean(axis=0)
    # R of a QR decomposition: R' R is the covariance of the weights, times the number of draws
    root = np.linalg.qr(posterior.weights - weights, mode="r") / np.sqrt(len(posterior.scale))
    doubt = np.linalg.norm(rows @ root.T, axis=1)
    half_widths = _half_widths(posterior)
    misses = np.abs(1 / posterior.left_out(rows) - 1) / np.interp(doubt, DOUBTS, half_widths)
    # Rank 0.9 (n + 1): that of a new value, as in conformal prediction (arXiv:2107.07511)
    stretch = float(np.quantile(misses, COVERAGE, method="weibull"))
    return _Model(
        columns=columns,
        unit=unit,
        weights=weights,
        root=root,
        low=0.1 * float(y.min()) / unit,
        half_widths=half_widths * stretch,
    )


def _unit(free: Array, y: Array) -> float:
    """Latency where each free term is 1, roughly: ridge on the relative errors.

    The median would be that of the rows, which may be small architectures most of all.
    """
    expected = free.mean(axis=1)
    first = float(np.median(y / expected))
    rows = free * (first / y)[:, None]
    held = (ROUGHLY / SHARE_STD) ** 2
    right = rows.sum(axis=0) + held / free.shape[1]
    weights = np.linalg.solve(rows.T @ rows + held * np.eye(free.shape[1]), right)
    return first * float(weights.sum())


def _believed(rows: Array, posteriors: list[Posterior]) -> Posterior:
    """Draws of all, each in proportion to how well it foretells rows that it has not seen.

    Chains that found different explanations, such as which rows were slow, are weighed like
    beliefs: they would take long to visit each other's (arXiv:2006.12335).
    """
    densities = np.array([posterior.unseen_density(rows) for posterior in posteriors])
    shares = np.exp(densities - densities.max())
    shares /= shares.sum()
    first, *others = (p.thinned(share) for p, share in zip(posteriors, shares, strict=True))
    return sum(others, first)


def _half_widths(posterior: Posterior) -> Array:
    """Of the intervals that hold nine of ten values, by how unsure a prediction is, relative."""
    draws = len(posterior.scale)
    error = np.minimum(posterior.draw_errors(-(-ERROR_DRAWS // draws)), 0.8)
    deviation = np.random.default_rng(1).standard_normal(len(error))
    measured = 1 / (1 - error)
    return np.array(
        [np.quantile(np.abs(measured * (1 + d * deviation) - 1), COVERAGE) for d in DOUBTS]
    )
