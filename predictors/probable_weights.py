"""Weights of a Gaussian process that are most probable given the data.

The maximum of the likelihood and of a wide log-normal prior on each weight (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, section 5.4.1), by L-BFGS. Each gene has a variance
of its own and the smooth functions a reach of their own: a second opinion beside the weights that
`GaussianProcess.learn` finds, which tie the genes to each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.gaussian_process import PARTS, SHARED_PARTS, GaussianProcess, Inputs, Weights

Floats = NDArray[np.float64]

_MEDIAN = np.log([*PARTS, *SHARED_PARTS, 0.01, 1.0, 1.0])
"""Prior median, as logarithms: the variances of the parts, of noise, and the two reaches."""
_WIDTH = np.array([1.5] * 7 + [2.0, 0.7, 0.7])
"""Prior deviation of these logarithms."""
_NOISE = len(PARTS) + len(SHARED_PARTS)
_GROUP_WIDTH = 1.0
"""Prior deviation of the logarithm of a group's variance."""
_LEAST_NOISE = 1e-7
_FARTHEST = 6.0
"""The search for weights stays within so many prior deviations."""


class ProbableWeights:
    """The most probable weights so far; they are bettered from fit to fit.

    Args:
        groups: Group of each feature, shape `(f,)`, see `GeneFeatures.groups`.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        self._groups = groups
        self._present = np.bincount(groups) > 0
        self._at = np.zeros(len(_MEDIAN) + len(self._present))
        """Where the weights are, in prior deviations from the median."""

    def learn(self, inputs: Inputs, targets: Floats, steps: int, *, shared: bool) -> Weights:
        """Better the weights by `steps` steps.

        Args:
            inputs: What targets are predicted from.
            targets: Of mean 0 and deviation 1, shape `(n,)`.
            steps: Steps of L-BFGS, at most.
            shared: Whether layers share.

        Returns:
            The weights.
        """
        from scipy.optimize import minimize  # a tenth of a second, which --help should not pay

        def loss(at: Floats) -> tuple[float, Floats]:
            process = GaussianProcess(self._groups, self._weights(at, shared))
            process.condition(inputs, targets)
            slopes = process.slopes()
            known = np.concatenate([slopes.parts, [slopes.noise], slopes.reaches]) * _WIDTH
            slope = np.concatenate([known, slopes.groups * _GROUP_WIDTH])
            return process.misfit() + 0.5 * float(at @ at), slope + at

        found = minimize(
            loss,
            self._at,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-_FARTHEST, _FARTHEST)] * len(self._at),
            options={"maxiter": steps, "maxfun": 2 * steps},
        )
        self._at = np.asarray(found.x)
        return self._weights(self._at, shared)

    def _weights(self, at: Floats, shared: bool) -> Weights:
        known = np.exp(_MEDIAN + _WIDTH * at[: len(_MEDIAN)])
        weights = Weights(
            parts=known[:_NOISE],
            groups=np.exp(_GROUP_WIDTH * at[len(_MEDIAN) :]) * self._present,
            noise=float(known[_NOISE]) + _LEAST_NOISE,
            even=0.0,
            reaches=(float(known[-2]), float(known[-1])),
        )
        return weights if shared else weights.apart()
