"""A Gaussian process over genes, whose parts are as large as the data say.

The covariance is a sum of parts: a trend over size, a smooth function of size, one contribution
per choice of each gene, products of the contributions of two genes, a smooth function of all of
them; and, where layers share, what genes of one kind contribute alike, and what two kinds do
together in a layer. How much each part and each gene weighs maximises the likelihood; the weights
are variance components, found by multiplicative steps that never lower it (Zhou et al., "MM
algorithms for variance components models", arXiv:1509.07426).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]

_BIAS = 1.0
PARTS = np.array([0.3, 0.1, 0.4, 0.05, 0.05])
SHARED_PARTS = np.array([0.1, 0.03])
"""Variance of each part before anything was learned, in the order above; those that are shared."""
_LEAST_NOISE = 1e-6
_NOISES = np.array([1.0, 10.0, 1e3, 1e5])
"""Tried one after the other where rounding makes a covariance indefinite."""
_LEAST_PART = 1e-7
_LARGEST_STEP = 4.0
_SHARED = 30.0
"""How strongly a gene's variance is drawn to that of all genes. Evaluations crowd where a search
looks: weaker ties fitted them better, and predicted the next ones worse."""
_EVEN = 3.0
"""Part of each gene's variance that is the same for all, where steps find the weights."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a target is predicted from."""

    features: Floats
    """Contrasts of the genes, shape `(n, f)`, see `GeneFeatures`."""
    context: Floats
    """Size and other sums, standardised, shape `(n, q)`."""
    sums: Floats
    """Of features over genes of one kind, shape `(n, s)`, see `GeneKinds`."""
    products: Floats
    """Of features of two kinds, summed over layers, shape `(n, p)`, see `GeneKinds`."""

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """Some rows."""
        return Inputs(
            features=self.features[rows],
            context=self.context[rows],
            sums=self.sums[rows],
            products=self.products[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How large each part of the covariance is."""

    parts: Floats
    """Variance of each part, shape `(7,)`; 0 leaves a part out."""
    groups: Floats
    """Relative variance of each group of features, shape `(g,)`."""
    noise: float
    """Variance of what no part explains."""
    even: float = _EVEN
    """Added to the relative variance of every group."""
    reaches: tuple[float, float] = (1.0, 1.0)
    """How far the two smooth functions reach, over size and over genes."""

    @property
    def shares(self) -> bool:
        """Whether layers share."""
        return bool(self.parts[len(PARTS) :].any())

    def sharing(self) -> Weights:
        """The same, but layers share."""
        parts = np.maximum(self.parts, np.append(np.zeros(len(PARTS)), SHARED_PARTS))
        return replace(self, parts=parts)

    def apart(self) -> Weights:
        """The same, but each gene contributes for itself."""
        parts = self.parts * (np.arange(len(self.parts)) < len(PARTS))
        return replace(self, parts=parts)


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Derivatives by the logarithms of the weights."""

    parts: Floats
    """Shape `(7,)`."""
    groups: Floats
    """By the logarithm of a group's variance and what is even, shape `(g,)`."""
    noise: float
    reaches: Floats
    """Shape `(2,)`."""


class GaussianProcess:
    """A posterior over functions of genes, given values at some of them.

    Args:
        groups: Group of each feature, shape `(f,)`, see `GeneFeatures.groups`.
        weights: Where the search for the weights starts; None starts from equal ones, and shares
            nothing.
    """

    def __init__(self, groups: Groups, weights: Weights | None = None) -> None:
        self._groups = groups
        count = int(groups.max()) + 1 if len(groups) else 1
        self._trend = np.arange(count) % 2 == 0
        self._present = np.bincount(groups, minlength=count) > 0
        if weights is None:
            weights = Weights(
                parts=np.append(PARTS, np.zeros(len(SHARED_PARTS))),
                groups=np.where(self._trend, 1.0, 0.3) * self._present,
                noise=0.1,
            )
        self.weights = weights

    def learn(self, inputs: Inputs, targets: Floats, steps: int) -> None:
        """Better the weights by `steps` steps, for targets `(n,)` of mean 0 and deviation 1."""
        for _ in range(steps):
            self._set(inputs, targets)
            self.weights = self._step(inputs)

    def condition(self, inputs: Inputs, targets: Floats) -> None:
        """Learn the function, with the weights that it has, from targets `(n,)`."""
        self._set(inputs, targets)

    def log_density(self) -> Floats:
        """Log density of each target under the posterior of all the others, shape `(n,)`."""
        precision = np.diag(self._inverse)
        errors = self._solved / precision
        result: Floats = 0.5 * (np.log(precision / (2 * np.pi)) - errors**2 * precision)
        return result

    def held_out(self) -> Floats:
        """Each target predicted from all the others, shape `(n,)`."""
        result: Floats = self._targets - self._solved / np.diag(self._inverse)
        return result

    def misfit(self) -> float:
        """Half the negative log likelihood, but for a constant."""
        return float(0.5 * self._targets @ self._solved) + self._root_determinant

    def slopes(self) -> Slopes:
        """Derivatives of the misfit."""
        weights, own, known = self.weights, self._own, self._known
        by_covariance = 0.5 * (self._inverse - np.outer(self._solved, self._solved))
        parts = np.array([float(np.vdot(by_covariance, part)) for part in own]) * weights.parts
        reaches = []
        for part in (1, 4):
            # exp(-u / 2) of a squared distance u, which its reach divides.
            distance = -2.0 * np.log(np.maximum(own[part], 1e-300))
            spent = float(np.vdot(by_covariance, own[part] * distance))
            reaches.append(weights.parts[part] * spent)
        smooth = by_covariance * own[4] * (weights.parts[4] / weights.reaches[1] ** 2)
        by_product = by_covariance * (weights.parts[2] + 2.0 * weights.parts[3] * own[2]) + smooth
        by_feature = ((by_product @ known) * known).sum(axis=0) - smooth.sum(axis=1) @ known**2
        size = len(weights.groups)
        groups = np.bincount(self._groups, by_feature, minlength=size)
        # The scale of all features follows: their mean variance stays one.
        share = np.bincount(self._groups, (known**2).mean(axis=0), minlength=size)
        return Slopes(
            parts=parts,
            groups=groups - share * groups.sum(),
            noise=weights.noise * float(np.trace(by_covariance)),
            reaches=np.array(reaches),
        )

    def mean(self, inputs: Inputs) -> Floats:
        """Posterior mean, shape `(k,)`."""
        result: Floats = self._cross(inputs) @ self._solved
        return result

    def posterior(self, inputs: Inputs) -> tuple[Floats, Floats]:
        """Posterior mean `(k,)` and covariance `(k, k)`, without noise."""
        cross = self._cross(inputs)
        scaled = self._scaled(inputs.features)
        own = self._total(self._parts(scaled, inputs, scaled, inputs))
        covariance: Floats = own - cross @ self._inverse @ cross.T
        return cross @ self._solved, covariance

    def _set(self, inputs: Inputs, targets: Floats) -> None:
        from scipy.linalg import lapack  # a tenth of a second, which --help should not pay

        self._targets = targets
        self._scale = 1.0
        scaled = self._scaled(inputs.features)
        norm = float((scaled**2).sum(axis=1).mean())
        self._scale = 1.0 / np.sqrt(norm) if norm > 0 else 1.0
        self._known = scaled * self._scale
        self._inputs = inputs
        self._shared = tuple(_unit(columns) for columns in (inputs.sums, inputs.products))
        self._own = self._parts(self._known, inputs, self._known, inputs)
        total = self._total(self._own)
        for noise in self.weights.noise * _NOISES:
            noisy = total.copy()
            noisy[np.diag_indices_from(noisy)] += noise
            factor, failed = lapack.dpotrf(noisy, lower=1)
            if not failed:
                break
        else:
            raise np.linalg.LinAlgError("covariance is not positive definite")
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse)
        self._inverse: Floats = inverse + np.tril(inverse, -1).T
        self._solved: Floats = self._inverse @ targets
        self._root_determinant = float(np.log(np.diag(factor)).sum())

    def _step(self, inputs: Inputs) -> Weights:
        """One multiplicative step for all variances."""
        solved, inverse = self._solved, self._inverse
        parts = self.weights.parts.copy()
        for i, part in enumerate(self._own):
            parts[i] *= _ratio(float(solved @ part @ solved), float((inverse * part).sum()))
        noise = self.weights.noise * _ratio(float(solved @ solved), float(np.trace(inverse)))
        size = len(self.weights.groups)
        explained = np.bincount(self._groups, (inputs.features.T @ solved) ** 2, minlength=size)
        spent = np.bincount(
            self._groups,
            np.einsum("nf,nf->f", inputs.features, inverse @ inputs.features),
            minlength=size,
        )
        groups = self.weights.groups.copy()
        for kind in (self._trend, ~self._trend):
            chosen = kind & self._present
            if chosen.any():
                up, down = explained[chosen], spent[chosen]
                # Towards the mean of all genes: one gene's own data say little of its variance.
                ratio = (up + _SHARED * up.mean()) / np.maximum(
                    down + _SHARED * down.mean(), 1e-300
                )
                groups[chosen] *= np.sqrt(np.clip(ratio, _LARGEST_STEP**-2, _LARGEST_STEP**2))
        groups /= max(float(groups[self._present].mean()), 1e-12) if self._present.any() else 1.0
        return replace(
            self.weights,
            parts=np.where(parts > 0, np.maximum(parts, _LEAST_PART), 0.0),
            groups=np.maximum(groups, 1e-6) * self._present,
            noise=max(noise, _LEAST_NOISE),
        )

    def _scaled(self, features: Floats) -> Floats:
        """Features with their weights in them, so that products are covariances."""
        return features * (
            np.sqrt(self.weights.groups[self._groups] + self.weights.even) * self._scale
        )

    def _cross(self, inputs: Inputs) -> Floats:
        scaled = self._scaled(inputs.features)
        return self._total(self._parts(scaled, inputs, self._known, self._inputs))

    def _parts(self, a: Floats, a_inputs: Inputs, b: Floats, b_inputs: Inputs) -> list[Floats]:
        a_context, b_context = a_inputs.context, b_inputs.context
        width = max(1, a_context.shape[1])
        contextual = a_context @ b_context.T / width
        near, close = self.weights.reaches
        product = a @ b.T
        distance = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * product
        apart = (
            (a_context**2).sum(axis=1)[:, None] + (b_context**2).sum(axis=1)[None, :]
        ) / width - 2 * contextual
        return [
            contextual,
            np.exp(-0.5 / near**2 * np.maximum(apart, 0.0)),
            product,
            product**2,
            np.exp(-0.5 / close**2 * np.maximum(distance, 0.0)),
            self._shared[0] * (a_inputs.sums @ b_inputs.sums.T),
            self._shared[1] * (a_inputs.products @ b_inputs.products.T),
        ]

    def _total(self, parts: list[Floats]) -> Floats:
        total: Floats = np.full(parts[0].shape, _BIAS)
        for weight, part in zip(self.weights.parts, parts, strict=True):
            total += weight * part
        return total


def _unit(columns: Floats) -> float:
    """What makes the mean variance of sums `(n, s)` one."""
    mean = float((columns**2).sum(axis=1).mean())
    return 1.0 / mean if mean > 0 else 1.0


def _ratio(explained: float, spent: float) -> float:
    if spent <= 0 or explained < 0:
        return 1.0
    return float(np.clip(np.sqrt(explained / spent), 1 / _LARGEST_STEP, _LARGEST_STEP))
