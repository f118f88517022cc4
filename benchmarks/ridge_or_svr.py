"""What others learn latency with: ridge regression or a support vector machine (DyNAS-T)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

Array = NDArray[np.float64]

SEARCH_ROWS = 400
"""The SVM's search on more rows takes most of an hour; the best one then learns from all."""


def ridge_or_svr(x: Array, y: Array) -> Callable[[Array], Array]:
    """Learn with whichever has the smaller MAPE in cross-validation; gives what predicts.

    Args:
        x: Features, shape `(n, d)`; they are standardized.
        y: Latencies, shape `(n,)`.
    """
    unit = 10 ** (np.floor(np.log10(y.max())) - 1)  # as in DyNAS-T: the largest has two digits
    few = slice(SEARCH_ROWS)
    searches = [
        GridSearchCV(
            make_pipeline(StandardScaler(), model),
            grid,
            scoring="neg_mean_absolute_percentage_error",
            cv=KFold(5, shuffle=True, random_state=0),
        ).fit(x[few], y[few] / unit)
        for model, grid in (
            (Ridge(), {"ridge__alpha": (0.1, 0.3, 1.0, 3.0, 10.0)}),
            (SVR(gamma="auto", epsilon=0.0), {"svr__C": (1.0, 3.0, 10.0, 30.0, 100.0)}),
        )
    ]
    best = max(searches, key=lambda search: search.best_score_).best_estimator_.fit(x, y / unit)
    return lambda unseen: best.predict(unseen) * unit
