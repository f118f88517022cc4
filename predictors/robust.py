"""Bayesian regression for few measured rows: sparse weights, and rows of a device that was slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FREEDOM = 4.0
"""Degrees of freedom of the errors of ordinary rows (Student's t)."""
SCALE = 0.02
"""Their size, as it is expected before any row is seen; relative."""
SLOW_MEAN, SLOW_STD = 0.18, 0.1
"""Share of its latency that a row measured on a slow device lost to being slow."""
SLOW_ROWS, OTHER_ROWS = 1.0, 9.0
"""Rows of both kinds that the belief in how many there are is worth (beta distribution)."""
MAX_SLOW = 0.25
"""No larger share of the rows is slow: two halves that far apart look like one with wide errors."""
SPARSITY = 0.005
"""Size of a held weight, as it is expected before any row is seen (half-Cauchy)."""
HELD_STD = 0.01
"""Root mean square of a held weight: few are large."""
BURN_IN, DRAWS = 100, 200
CHAINS, MANY_ROWS = 4, 150
"""Chains, and the rows from which on one chain is enough."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is believed about the weights before any row is seen."""

    mean: Array
    """Expected weights of the free terms, shape `(f,)`; the other terms are held at 0."""
    std: Array
    """Their standard deviations, shape `(f,)`."""
    held: Array
    """How large the weights of the other terms may be, relative to each other, `(p - f,)`."""
    sparse: bool = True
    """Few of the others matter, nobody knows which; else `held` are standard deviations."""

    @property
    def variance(self) -> Array:
        """Of each weight, about, shape `(p,)`."""
        held = HELD_STD * self.held if self.sparse else self.held
        return np.asarray(np.concatenate([self.std, held]) ** 2, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Draws of all that is unknown."""

    weights: Array
    """Shape `(draws, p)`."""
    scale: Array
    """Size of the errors of ordinary rows, shape `(draws,)`, relative."""
    slow: Array
    """Share of rows measured while the device was slow, shape `(draws,)`."""

    def __add__(self, other: Posterior) -> Posterior:
        return Posterior(
            weights=np.concatenate([self.weights, other.weights]),
            scale=np.concatenate([self.scale, other.scale]),
            slow=np.concatenate([self.slow, other.slow]),
        )

    def thinned(self, share: float) -> Posterior:
        """Evenly spaced draws, `share` of all."""
        count = len(self.scale)
        kept = np.linspace(0, count, round(share * count), endpoint=False).astype(int)
        return Posterior(weights=self.weights[kept], scale=self.scale[kept], slow=self.slow[kept])

    def unseen_density(self, rows: Array) -> float:
        """Log density of the rows, each by a model that has not seen it.

        By importance sampling (Gelfand 1996), as `left_out`.
        """
        doubt = 1 / self.likelihood(1 - rows @ self.weights.T)  # (n, draws)
        return float(-np.log(doubt.mean(axis=1)).sum())

    def left_out(self, rows: Array) -> Array:
        """`rows @ weights` of each row by a model that has not seen it, shape `(n,)`.

        Draws are weighted by the inverse of how likely they make the row (importance sampling).
        """
        fitted = rows @ self.weights.T  # (n, draws)
        doubt = 1 / self.likelihood(1 - fitted)
        result: Array = (fitted * doubt).sum(axis=1) / doubt.sum(axis=1)
        return result

    def likelihood(self, error: Array) -> Array:
        """Density of relative errors, shape `(n, draws)`, as `error`."""
        return _ordinary(error, self.scale) * (1 - self.slow) + _slow(error) * self.slow

    def draw_errors(self, count: int) -> Array:
        """Relative errors of rows that are yet to come, shape `(count * draws,)`."""
        rng = np.random.default_rng(0)
        size = (count, len(self.scale))
        ordinary = self.scale * rng.standard_t(FREEDOM, size)
        slow = rng.normal(SLOW_MEAN, SLOW_STD, size)
        return np.asarray(np.where(rng.random(size) < self.slow, slow, ordinary)).ravel()


def sample_posterior(rows: Array, prior: Prior) -> list[Posterior]:
    """Fit `rows @ weights` to 1 by Gibbs sampling.

    Rows are terms divided by the measured latency, so that `1 - rows @ weights` is the relative
    error. Most rows have errors of Student's t; those measured while the device was slow lost a
    larger share. A few held weights matter and most do not: the horseshoe prior (Carvalho et al.
    2010), sampled as in arXiv:1508.03884.

    Args:
        rows: Shape `(n, p)`, of order 1.
        prior: Belief about the `p` weights.

    Returns:
        The draws of each chain.
    """
    rng = np.random.default_rng(0)
    n, p = rows.shape
    chains = CHAINS if n < MANY_ROWS else 1
    free = len(prior.mean)
    mean = np.concatenate([prior.mean, np.zeros(p - free)])
    scale2, slow = np.full((chains, 1), 0.05**2), np.full((chains, 1), 0.1)
    local, local_aid = np.ones((chains, p - free)), np.ones((chains, p - free))
    overall = np.full((chains, 1), SPARSITY**2 if prior.sparse else 1.0)
    overall_aid = np.ones((chains, 1))
    precision, lost = np.full((chains, n), 1 / 0.05**2), np.zeros((chains, n))  # of each row
    draws: list[tuple[Array, Array, Array]] = []
    for step in range(BURN_IN + DRAWS):
        believed = np.empty((chains, p))
        believed[:, :free] = prior.std**-2.0
        believed[:, free:] = 1 / (local * overall * prior.held**2)
        weights = _draw_weights(rng, rows, precision, 1 - lost, believed, mean)  # (chains, p)
        error = 1 - weights @ rows.T  # (chains, n)
        ordinary = _ordinary(error, np.sqrt(scale2)) * (1 - slow)
        is_slow = rng.random((chains, n)) * (ordinary + _slow(error) * slow) > ordinary
        count = is_slow.sum(axis=1, keepdims=True)
        slow = np.minimum(rng.beta(SLOW_ROWS + count, OTHER_ROWS + n - count), MAX_SLOW)
        trust = _gamma(rng, (FREEDOM + 1) / 2, (FREEDOM + error**2 / scale2) / 2)
        squares = np.where(is_slow, 0.0, trust * error**2).sum(axis=1, keepdims=True)
        scale2 = 1 / _gamma(rng, (n - count) / 2 + 1, squares / 2 + SCALE**2)
        precision = np.where(is_slow, SLOW_STD**-2.0, trust / scale2)
        lost = np.where(is_slow, SLOW_MEAN, 0.0)
        if prior.sparse:
            size = (weights[:, free:] / prior.held) ** 2
            local = np.clip(1 / _gamma(rng, 1.0, 1 / local_aid + size / (2 * overall)), 1e-6, 1e6)
            local_aid = 1 / _gamma(rng, 1.0, 1 + 1 / local)
            total = (size / local).sum(axis=1, keepdims=True)
            overall = np.clip(
                1 / _gamma(rng, (p - free + 1) / 2, 1 / overall_aid + total / 2), 1e-8, 10.0
            )
            overall_aid = 1 / _gamma(rng, 1.0, SPARSITY**-2.0 + 1 / overall)
        if step >= BURN_IN:
            draws.append((weights, np.sqrt(scale2)[:, 0], slow[:, 0]))
    weight, scale, share = (np.stack(one, axis=1) for one in zip(*draws, strict=True))
    return [Posterior(weights=weight[c], scale=scale[c], slow=share[c]) for c in range(chains)]


def _draw_weights(
    rng: np.random.Generator, rows: Array, trust: Array, target: Array, held: Array, mean: Array
) -> Array:
    """One draw of weights for each chain, shape `(chains, p)`."""
    weighted: Array = trust[..., None] * rows  # (chains, n, p)
    matrix = np.swapaxes(weighted, 1, 2) @ rows
    diagonal = np.arange(rows.shape[1])
    matrix[:, diagonal, diagonal] += held
    right = np.einsum("cnp,cn->cp", weighted, target) + held * mean
    # matrix is L L'; the mean solves L L' w = right, and L'^-1 e has covariance matrix^-1
    lower = np.linalg.cholesky(matrix)
    half = np.linalg.solve(lower, right[..., None])
    drawn = half + rng.standard_normal(half.shape)
    solved = np.linalg.solve(np.swapaxes(lower, 1, 2), drawn)
    return np.asarray(solved[..., 0], dtype=np.float64)


def _gamma(rng: np.random.Generator, shape: Array | float, rate: Array) -> Array:
    return rng.gamma(shape, 1 / rate)


def _ordinary(error: Array, scale: Array) -> Array:
    """Student's t with 4 degrees of freedom."""
    result: Array = 0.375 / scale * (1 + (error / scale) ** 2 / FREEDOM) ** (-(FREEDOM + 1) / 2)
    return result


def _slow(error: Array) -> Array:
    density = np.exp(-0.5 * ((error - SLOW_MEAN) / SLOW_STD) ** 2)
    return np.asarray(density / (SLOW_STD * np.sqrt(2 * np.pi)))
