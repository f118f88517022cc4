"""The standard deviation of a prediction, from the errors of predictions of what was not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latency.noise import Noise
from predictors.accuracy import Values

Z_90 = 1.6449
"""Nine of ten normal errors are within so many standard deviations."""
BELIEF_WEIGHT = 2.0
"""How many errors the belief before any error is worth."""


def relative_std(
    errors: Values,
    *,
    unfitted: float,
    remaining: float | None = None,
    noise: Noise | None = None,
    known: Values | float = 0.0,
    fitted: int = 0,
) -> float:
    """Standard deviation such that 1.645 of it hold 90 % of new errors, few as the old ones are.

    The posterior predictive of a normal error whose variance has a scaled inverse chi-squared
    prior (Gelman et al., Bayesian Data Analysis, 2.6): Student's t, told by its 90 % interval.

    Args:
        errors: Relative errors of predictions by models that had not seen the truth, shape `(n,)`.
        unfitted: The standard deviation before any is seen. It falls with the square root of their
            number, not below the noise, and is worth 2 errors.
        remaining: What it falls to where a few already take out most of it, as a factor does of a
            table that is all too high; then it falls with their number.
        noise: How well the truth was measured, if that is known.
        known: Standard deviation of a part of each error that is known by itself, shape `(n,)`
            or one for all; what is returned is that of the rest.
        fitted: Number of factors that were fitted: so many errors say nothing new.
    """
    seen = np.asarray(errors, dtype=np.float64)
    noise = noise or Noise()
    belief = unfitted / math.sqrt(1 + len(seen))
    if remaining is not None:
        belief = math.hypot(unfitted / (1 + len(seen)), remaining)
    belief = max(belief, noise.own)
    rest = max(float(np.sum(seen**2 - np.asarray(known, dtype=np.float64) ** 2)), 0.0)
    variance = (rest + BELIEF_WEIGHT * belief**2) / (len(seen) + BELIEF_WEIGHT)
    degrees = max(len(seen) - fitted, 1) + BELIEF_WEIGHT
    # scipy.special alone loads in a tenth of the time of scipy.stats
    from scipy.special import stdtrit

    # What sessions share is in what was fitted, and in what is measured in other sessions; the
    # state of the machine differs between the two
    shared = 2 * noise.shared**2 + noise.between**2
    return math.sqrt(variance * (float(stdtrit(degrees, 0.95)) / Z_90) ** 2 + shared)


def folds(count: int, most: int = 10) -> NDArray[np.int64]:
    """The fold of each of `count` measurements, shape `(count,)`; each its own if they are few."""
    order = np.random.default_rng(0).permutation(count)
    return order % max(1, count if count <= 2 * most else most)


def widening(candidates: Sequence[Values]) -> float:
    """What the intervals of the best of several are short of: at least 1.

    The one with the least mean absolute error was lucky too. So each error is taken again, of the
    candidate that is best on all the others.

    Args:
        candidates: Relative errors on what was not seen, shape `(n,)` for each candidate.
    """
    errors = np.abs(np.asarray(candidates, dtype=np.float64))  # (candidates, n)
    if errors.shape[1] < 2:
        return 1.0
    without = errors.sum(axis=1, keepdims=True) - errors
    honest = errors[without.argmin(axis=0), np.arange(errors.shape[1])]
    own = float(np.mean(errors[errors.sum(axis=1).argmin()] ** 2))
    return max(1.0, math.sqrt(float(np.mean(honest**2)) / own)) if own > 0 else 1.0
