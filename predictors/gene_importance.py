"""How much of an objective's variation each gene explains: first-order Sobol indices.

The share of gene g is `Var(E[f | g]) / Var(f)`: the part of the variance over random subnets that
is gone once g is known and all else is averaged over (Sobol, 1993, "Sensitivity estimates for
nonlinear mathematical models"). As in functional ANOVA of hyperparameters (Hutter, Hoos and
Leyton-Brown, ICML 2014), f is a model of the few evaluations there are. Its doubt is carried along
by drawing f from its posterior (Marrel et al., arXiv:0802.1008).

Subnets at random and not those that were evaluated: a search evaluates what is near the front,
where genes go together, and the share of one could not be told from that of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.quality import QualityPredictor
from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
Genes = NDArray[np.int64]

FEWEST = 20
"""With fewer evaluations nothing is told."""
MOST = 500
"""Evaluations that the model looks at, at most."""
_POINTS = (1024, 2048)
"""Random subnets: so many, and at most so many where there are many choices."""
_POINTS_PER_CHOICE = 4
_DRAWS = 64
_FOLDS = 5
_ENDS = (0.05, 0.95)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Part of an objective's variance, in [0, 1], and the ends of its 90 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What the genes of a space explain of one objective."""

    genes: Mapping[str, Share]
    """By name, of the genes with a choice."""
    kinds: Mapping[str, Share]
    """Added up over the genes of a kind, see `GeneImportance.kinds`."""
    single: Share
    """Added up over all genes; what is left is in combinations of genes, and in noise."""
    r2: float | None = None
    """Coefficient of determination on evaluations left out of the model; None without a model."""


class GeneImportance:
    """Shares of the genes in the variance of objectives over one sample of random subnets.

    Args:
        space: The search space.
        seed: Seed of the sample and of the draws.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        design, self._gene_of = _contrasts(space.cardinalities)
        least, most = _POINTS
        count = min(most, max(least, _POINTS_PER_CHOICE * len(self._gene_of)))
        # Every choice equally often, so that genes are as good as uncorrelated.
        columns = [self._rng.permutation(np.arange(count) % c) for c in space.cardinalities]
        raw = np.stack(columns, axis=1).astype(np.int64)
        self._design = np.hstack([design[g][raw[:, g]] for g in range(space.dimensions)])
        self._effects = design
        self.architectures = space.decode_all(raw)
        """The sample: uniform over genes, like `SearchSpace.sample`."""
        self.kinds: dict[str, list[str]] = {}
        """Genes by what their names begin with: `ffn.0` to `ffn.11` are `ffn`."""
        for name, choices in space.choices.items():
            if len(choices) > 1:
                self.kinds.setdefault(name.partition(".")[0], []).append(name)

    def of_known(self, values: Floats) -> Shares:
        """Shares in an objective that is known for every architecture of the sample, `(p,)`."""
        return self._shares(values[None])

    def of_evaluated(self, genes: Genes, values: Floats) -> Shares | None:
        """Shares in an objective that was evaluated.

        Args:
            genes: Choice indices of what was evaluated, shape `(n, d)`.
            values: The objective, minimised, shape `(n,)`, finite.

        Returns:
            None if there are fewer than `FEWEST` evaluations, or all are equal.
        """
        if len(values) < FEWEST or values.max() <= values.min():
            return None
        if len(values) > MOST:
            kept = np.linspace(0, len(values) - 1, MOST).round().astype(np.int64)
            genes, values = genes[kept], values[kept]
        predictor = QualityPredictor(self._space)
        predictor.fit(genes, np.zeros((len(genes), 0)), values)
        points = self._space.encode_all(self.architectures)
        inputs = predictor.inputs(points, np.zeros((len(points), 0)))
        draws = predictor.sample(inputs, _DRAWS, self._rng)
        return self._shares(draws, _left_out(predictor, genes, values))

    def _shares(self, values: Floats, r2: float | None = None) -> Shares:
        """Shares in the variance of each row of `(draws, p)`."""
        shares = dict(zip(self._space.names, self._first_order(values).T, strict=True))
        return Shares(
            genes={name: _share(shares[name]) for of in self.kinds.values() for name in of},
            kinds={
                kind: _share(np.sum([shares[name] for name in of], axis=0))
                for kind, of in self.kinds.items()
            },
            single=_share(np.sum(list(shares.values()), axis=0)),
            r2=r2,
        )

    def _first_order(self, values: Floats) -> Floats:
        """First-order index of every gene in each row, shape `(draws, d)`.

        By least squares on the choices of all genes at once. A gene that does nothing would still
        get what chance gives it, so the variance that chance is expected to give is taken off.
        """
        centred = (values - values.mean(axis=1, keepdims=True)).T
        coefficients, *_ = np.linalg.lstsq(self._design, centred, rcond=None)
        free = max(1, len(self._design) - len(self._gene_of) - 1)
        rest = ((centred - self._design @ coefficients) ** 2).sum(axis=0) / free
        found = np.zeros((len(values), self._space.dimensions))
        for gene, effects in enumerate(self._effects):
            own = effects @ coefficients[self._gene_of == gene]
            chance = rest * effects.shape[1] / len(self._design)
            found[:, gene] = np.maximum((own**2).mean(axis=0) - chance, 0.0)
        # Genes are drawn independently, so that their variances and the rest add up to the whole.
        total = found.sum(axis=1) + rest
        shares: Floats = found / np.maximum(total, np.finfo(np.float64).tiny)[:, None]
        return shares


def _contrasts(cardinalities: Genes) -> tuple[list[Floats], Genes]:
    """For each gene its choices as rows that add up to 0, `(c, c - 1)`; the gene of each column."""
    found = [np.vstack([-np.ones(c - 1), np.eye(c - 1)]) for c in cardinalities.tolist()]
    return found, np.repeat(np.arange(len(cardinalities)), cardinalities - 1)


def _left_out(predictor: QualityPredictor, genes: Genes, values: Floats) -> float:
    """How well each fold is predicted from the others, by the weights that were learned from all.

    Leaves the predictor fitted on the last folds.
    """
    fold = np.arange(len(values)) % _FOLDS
    predicted = np.zeros(len(values))
    for one in range(_FOLDS):
        rest, left = fold != one, fold == one
        predictor.fit(genes[rest], np.zeros((int(rest.sum()), 0)), values[rest])
        inputs = predictor.inputs(genes[left], np.zeros((int(left.sum()), 0)))
        predicted[left] = predictor.mean(inputs)
    return float(1.0 - ((values - predicted) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def _share(draws: Floats) -> Share:
    low, high = np.quantile(draws, _ENDS)
    return Share(share=float(np.median(draws)), low=float(low), high=float(high))
