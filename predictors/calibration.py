"""The standard deviation of a prediction, from the errors of predictions of what was not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy import Values

Z_90 = 1.6449
"""Nine of ten normal errors are within so many standard deviations."""
BELIEF_WEIGHT = 2.0
"""How many errors the belief before any error is worth."""


def relative_std(
    errors: Values, *, belief: float, known: Values | float = 0.0, fitted: int = 0
) -> float:
    """Standard deviation such that 1.645 of it hold 90 % of new errors, few as the old ones are.

    The posterior predictive of a normal error whose variance has a scaled inverse chi-squared
    prior (Gelman et al., Bayesian Data Analysis, 2.6): Student's t, told by its 90 % interval.

    Args:
        errors: Relative errors of predictions by models that had not seen the truth, shape `(n,)`.
        belief: The standard deviation that is expected before any error is seen, worth 2 errors.
        known: Standard deviation of a part of each error that is known by itself, shape `(n,)`
            or one for all; what is returned is that of the rest.
        fitted: Number of factors that were fitted: so many errors say nothing new.
    """
    seen = np.asarray(errors, dtype=np.float64)
    rest = float(np.sum(seen**2 - np.asarray(known, dtype=np.float64) ** 2))
    variance = (max(rest, 0.0) + BELIEF_WEIGHT * belief**2) / (len(seen) + BELIEF_WEIGHT)
    degrees = max(len(seen) - fitted, 1) + BELIEF_WEIGHT
    # scipy.special alone loads in a tenth of the time of scipy.stats
    from scipy.special import stdtrit

    return float(np.sqrt(variance) * stdtrit(degrees, 0.95) / Z_90)


def folds(count: int, most: int = 10) -> NDArray[np.int64]:
    """The fold of each of `count` measurements, shape `(count,)`; each its own if they are few."""
    order = np.random.default_rng(0).permutation(count)
    return order % max(1, count if count <= 2 * most else most)
