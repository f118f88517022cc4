"""Predicts an objective of architectures from few evaluations, with all of its uncertainty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.gaussian_process import GaussianProcess, Inputs, Weights
from predictors.gene_features import GeneFeatures
from predictors.gene_kinds import GeneKinds
from predictors.probable_weights import ProbableWeights
from predictors.warps import Warp, warps
from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
Genes = NDArray[np.int64]

_STEPS = (4, 5)
"""Steps of the weights on every scale, and on the chosen one."""
_PROBABLE_STEPS = 15
_OPINIONS = 300
"""Evaluations from which there is one opinion only: by then two agree, and take twice the time."""
_FEW = 200
"""Evaluations that scales are compared on, at most."""
_MANY = 400
"""Evaluations that weights are learned from, at most; predictions use all."""
_GROWTH = 1.2
"""Scale and weights are learned again when there are so many times more evaluations."""
_SURE = 2.0
"""Layers share if that raises the log density of all evaluations, left out one by one, by more:
most spaces repeat a layer, but what a choice does may be another thing in each."""

FAR = 100.0
"""Values beyond the best by this many times the median's distance count as so far."""


class QualityPredictor:
    """Gaussian processes on the scale that predicts best what it was not told.

    While little is known two of them, alike but for how their weights were found, are as much
    believed as each other: one alone is surer than it should be.

    Args:
        space: The search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._features = GeneFeatures(space)
        self._kinds = GeneKinds(space, self._features.groups)
        self._weights: Weights | None = None
        self._probable = ProbableWeights(self._features.groups)
        self._second: Weights | None = None
        self._warp: Warp | None = None
        self._choice = 0
        self._learned_from = 0
        self._center: Floats = np.zeros(0)
        self._spread: Floats = np.ones(0)
        self._processes: list[GaussianProcess] = []
        self._constant = 0.0

    def fit(self, genes: Genes, known: Floats, values: Floats) -> None:
        """Learn from evaluations.

        Args:
            genes: Choice indices, shape `(n, d)`.
            known: What else is known of each, shape `(n, k)`; such as its cost.
            values: The objective, minimised, shape `(n,)`, finite. How bad the very worst are
                (a failure that was given a large value, say) is not learned.
        """
        low, middle = float(values.min()), float(np.median(values))
        if middle > low:
            values = np.minimum(values, low + FAR * (middle - low))
        context = self._context(genes, known)
        self._center = context.mean(axis=0)
        self._spread = np.where(context.std(axis=0) > 0, context.std(axis=0), 1.0)
        if values.max() <= values.min():
            self._processes, self._constant = [], float(values[0])
            return
        inputs = self.inputs(genes, known)
        if not self._processes or len(values) >= _GROWTH * self._learned_from:
            self._choose(inputs, values)
            self._learned_from = len(values)
        scales = list(warps(values))
        self._warp = scales[min(self._choice, len(scales) - 1)]
        self._processes = [
            GaussianProcess(self._features.groups, weights)
            for weights in (self._weights, self._second)
            if weights is not None
        ]
        targets = self._warp.forward(values)
        for process in self._processes:
            process.condition(inputs, targets)

    def _choose(self, inputs: Inputs, values: Floats) -> None:
        """Find the scale, by density left out one by one, and the weights."""
        few = _even_rows(len(values), _FEW)
        best = -np.inf
        for index, warp in enumerate(warps(values)):
            process = GaussianProcess(self._features.groups, self._weights)
            targets = warp.forward(values)
            process.learn(inputs.take(few), targets[few], _STEPS[0])
            process.condition(inputs.take(few), targets[few])
            density = float((process.log_density() + warp.log_slope(values[few])).mean())
            if density > best + 1e-3:
                best, self._choice = density, index
                chosen, start = warp, process.weights
        rows = _even_rows(len(values), _MANY)
        inputs, targets = inputs.take(rows), chosen.forward(values)[rows]
        self._weights = self._learned(inputs, targets, start)
        self._second = None
        if len(values) < _OPINIONS:
            self._second = self._probable.learn(
                inputs, targets, _PROBABLE_STEPS, shared=self._weights.shares
            )

    def _learned(self, inputs: Inputs, targets: Floats, start: Weights) -> Weights:
        """Weights with which layers share, if that surely predicts better; else without."""
        apart, alone = self._fitted(inputs, targets, start.apart())
        if inputs.sums.shape[1] == 0:  # no two genes are of one kind
            return alone
        shared, together = self._fitted(inputs, targets, start.sharing())
        return together if shared > apart + _SURE else alone

    def _fitted(self, inputs: Inputs, targets: Floats, start: Weights) -> tuple[float, Weights]:
        """Log density of all targets, left out one by one, and the weights that it is of."""
        process = GaussianProcess(self._features.groups, start)
        process.learn(inputs, targets, _STEPS[1])
        process.condition(inputs, targets)
        return float(process.log_density().sum()), process.weights

    def inputs(self, genes: Genes, known: Floats) -> Inputs:
        """What the process looks at, for choice indices `(k, d)`."""
        context = (self._context(genes, known) - self._center) / self._spread
        features = self._features(genes)
        return Inputs(
            features=features,
            context=context,
            sums=self._kinds.sums(features),
            products=self._kinds.products(features),
        )

    def _context(self, genes: Genes, known: Floats) -> Floats:
        return np.column_stack([self._features.size(genes), known])

    def mean(self, inputs: Inputs) -> Floats:
        """Median of each prediction, shape `(k,)`, in the unit of the values."""
        if not self._processes or self._warp is None:
            return np.full(len(inputs), self._constant)
        means = [process.mean(inputs) for process in self._processes]
        return self._warp.inverse(np.mean(means, axis=0))

    def sample(self, inputs: Inputs, count: int, rng: np.random.Generator) -> Floats:
        """Values that may be, drawn together, shape `(count, k)`."""
        if not self._processes or self._warp is None:
            return np.full((count, len(inputs)), self._constant)
        drawn = []
        for i, process in enumerate(self._processes):
            mean, covariance = process.posterior(inputs)
            covariance[np.diag_indices_from(covariance)] += process.weights.noise
            normal = rng.standard_normal(((count + i) // len(self._processes), len(inputs)))
            drawn.append(mean + normal @ _root(covariance).T)
        return self._warp.inverse(np.concatenate(drawn))


def _even_rows(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` rows, evenly spaced."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _root(covariance: Floats) -> Floats:
    """Lower triangle whose square is the covariance, or nearly."""
    size = float(np.trace(covariance)) / max(1, len(covariance))
    for jitter in (1e-9, 1e-7, 1e-5, 1e-3):
        try:
            ridge = jitter * size * np.eye(len(covariance))
            return np.asarray(np.linalg.cholesky(covariance + ridge), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
    return np.diag(np.sqrt(np.maximum(np.diag(covariance), 0.0)))
