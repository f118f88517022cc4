"""The predictor of LINAS (arXiv:2205.10358): Ridge or a support vector machine on one-hot genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVR

from nas.search.problem import Floats, Genes
from search_spaces import SearchSpace

ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Ridge: from the range that DyNAS-T searches, at fewer places."""
COSTS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Support vector machine: likewise."""
CHOSEN_ON = 200
"""Rows that kind and settings are chosen on, at most; the chosen one learns from all."""
_ERROR = "neg_mean_absolute_percentage_error"


class OneHot:
    """One column for every choice that occurs in the training rows and not in all of them."""

    def __init__(self, space: SearchSpace, rows: Genes) -> None:
        self._space = space
        self._first = np.cumsum(space.cardinalities) - space.cardinalities
        self._kept = np.ones(int(space.cardinalities.sum()), dtype=np.bool_)
        self._kept = self(rows).std(axis=0) > 0

    def __call__(self, rows: Genes) -> Floats:
        """Features `(n, f)` of genes `(n, d)`; a gene that does not count has no choice."""
        columns = np.zeros((len(rows), len(self._kept)))
        row, gene = np.nonzero(self._space.active_mask(rows))
        columns[row, self._first[gene] + rows[row, gene]] = 1.0
        return columns[:, self._kept]


class RidgeOrSvm:
    """Kind and settings of one objective's predictor, chosen anew when there are twice the rows."""

    def __init__(self) -> None:
        self._rows = 0
        self._best: Any = None

    def fit(self, features: Floats, target: Floats) -> Callable[[Floats], Floats]:
        """A predictor learned from `(n, f)` features and `(n,)` values.

        As in DyNAS-T: 5 folds, relative error, no scaling of features.
        """
        # Brought to the order of 10 to 100, which the grid of costs is made for.
        largest = float(np.abs(target).max())
        scale = 10.0 ** (np.floor(np.log10(largest)) - 1) if largest > 0 else 1.0
        labels = target / scale
        if len(labels) < 2 or features.shape[1] == 0:
            mean = float(target.mean())
            return lambda rows: np.full(len(rows), mean)
        if len(labels) >= 2 * self._rows:
            self._rows, self._best = len(labels), _chosen(features, labels)
        model = clone(self._best).fit(features, labels)
        predict = model.predict if isinstance(model, Ridge) else _kernel_predictor(model)
        return lambda rows: np.asarray(predict(rows) * scale)


def _chosen(features: Floats, labels: Floats) -> Any:
    """The unfitted model with the smallest error in cross-validation."""
    some = np.linspace(0, len(labels) - 1, min(len(labels), CHOSEN_ON)).astype(np.int64)
    searches = [
        GridSearchCV(model, grid, scoring=_ERROR, cv=min(5, len(some)), refit=False).fit(
            features[some], labels[some]
        )
        for model, grid in (
            (Ridge(), {"alpha": ALPHAS}),
            (SVR(kernel="rbf", gamma="auto", epsilon=0.0), {"C": COSTS}),
        )
    ]
    best = max(searches, key=lambda search: float(search.best_score_))
    return clone(best.estimator).set_params(**best.best_params_)


def _kernel_predictor(model: Any) -> Callable[[Floats], Floats]:
    """What an RBF machine predicts, by a matrix product: its own method takes ten times longer."""
    support, weights = model.support_vectors_, model.dual_coef_[0]
    gamma, squares = 1.0 / support.shape[1], (support**2).sum(axis=1)

    def predict(rows: Floats) -> Floats:
        distances = (rows**2).sum(axis=1)[:, None] + squares - 2.0 * rows @ support.T
        return np.asarray(np.exp(-gamma * distances) @ weights + model.intercept_[0])

    return predict
