"""Ways to learn latency from the cost terms of few networks; all make the relative error small."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
Regressor = Callable[[Floats, Floats], Function]
"""Takes terms, shape `(n, f)`, not below 0, and latencies, shape `(n,)`, above 0; gives what
predicts latencies, `(k,)`, of other terms, `(k, f)`."""

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def ridge(terms: Floats, latency: Floats) -> Function:
    """Ridge regression on the terms, whose relative errors are made small.

    The penalty is the one with the least error when each row is left out in turn.
    """
    scale = np.maximum(terms.mean(axis=0), 1e-12)
    x = terms / scale / latency[:, None] * latency.mean()  # what it gives for each is to be 1
    best = (np.inf, np.zeros(terms.shape[1]))
    for penalty in PENALTIES:
        inverse = np.linalg.inv(x.T @ x + penalty * len(x) * np.eye(x.shape[1]))
        weights = inverse @ x.sum(axis=0)
        leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
        errors = (x @ weights - 1) / np.maximum(1 - leverage, 1e-6)
        best = min(best, (float(np.abs(errors).mean()), weights), key=lambda one: one[0])
    weights = best[1] / scale * latency.mean()
    low = 0.1 * float(latency.min())
    return lambda other: np.maximum(other @ weights, low)


def svr(terms: Floats, latency: Floats) -> Function:
    """Support vector regression of the logarithms with a Gaussian kernel."""
    from sklearn.svm import SVR

    return _logarithmic(SVR(C=3000.0, epsilon=0.003, gamma=0.001), terms, latency)


def boosting(terms: Floats, latency: Floats) -> Function:
    """Gradient-boosted trees on the logarithms."""
    from sklearn.ensemble import GradientBoostingRegressor

    trees = GradientBoostingRegressor(
        n_estimators=100, max_depth=3, learning_rate=0.15, subsample=0.8, random_state=0
    )
    return _logarithmic(trees, terms, latency)


def gaussian_process(terms: Floats, latency: Floats) -> Function:
    """A Gaussian process over the logarithms: a linear trend, a smooth deviation, noise."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    kernel = (
        ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, sigma_0_bounds="fixed")
        + ConstantKernel(0.1, (1e-4, 1e2)) * RBF(5.0, (0.5, 50.0))
        + WhiteKernel(1e-3, (1e-6, 1.0))
    )
    return _logarithmic(GaussianProcessRegressor(kernel, normalize_y=True), terms, latency)


def ensemble(terms: Floats, latency: Floats) -> Function:
    """The geometric mean of a linear, a kernel and a Bayesian model."""
    members = [one(terms, latency) for one in (ridge, svr, gaussian_process)]
    return lambda other: np.exp(np.mean([np.log(member(other)) for member in members], axis=0))


def _logarithmic(model: object, terms: Floats, latency: Floats) -> Function:
    """Fit a scikit-learn model to the logarithms, standardised."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    pipeline = make_pipeline(FunctionTransformer(np.log), StandardScaler(), model)
    center, spread = np.log(latency).mean(), max(float(np.log(latency).std()), 1e-9)
    with warnings.catch_warnings():
        # A kernel at the edge of its bounds is a good one all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(terms, (np.log(latency) - center) / spread)
    return lambda other: np.exp(center + spread * pipeline.predict(other))


REGRESSORS: Mapping[str, Regressor] = {
    "ridge": ridge,
    "svr": svr,
    "boosting": boosting,
    "gaussian-process": gaussian_process,
    "ensemble": ensemble,
}
