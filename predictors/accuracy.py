"""How well a predicted latency matches a measured one: relative error and agreement in order."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.floating]


def mape(predicted: Values, measured: Values) -> float:
    """Mean absolute percentage error, as a fraction (0.03 is 3 %).

    Args:
        predicted: Predictions, shape `(n,)`, in any unit.
        measured: The truth, shape `(n,)`, > 0, in the same unit.

    Returns:
        `mean(|predicted - measured| / measured)`.

    Raises:
        ValueError: There is no pair, the shapes differ, or a measured value is not positive.
    """
    p, m = _pairs(predicted, measured)
    if m.min() <= 0:
        raise ValueError(f"measured value {m.min()} is not > 0; leave failed measurements out")
    return float(np.mean(np.abs(p - m) / m))


def kendall_tau(predicted: Values, measured: Values) -> float:
    """Kendall's tau-b: 1 for the same order, -1 for the reverse (Kendall 1945, ties corrected).

    Compares all pairs, so memory grows with `n ** 2`: meant for up to a few thousand values.

    Args:
        predicted: Predictions, shape `(n,)`, in any unit.
        measured: The truth, shape `(n,)`, in any unit.

    Returns:
        Tau in [-1, 1]; NaN where it is undefined: one pair only, or one side is constant.

    Raises:
        ValueError: There is no pair, or the shapes differ.
    """
    p, m = _pairs(predicted, measured)
    upper = np.triu_indices(len(p), k=1)
    order_p = np.sign(p[:, None] - p[None, :])[upper]  # (n * (n - 1) / 2,)
    order_m = np.sign(m[:, None] - m[None, :])[upper]
    untied = np.sqrt(np.count_nonzero(order_p)) * np.sqrt(np.count_nonzero(order_m))
    if untied == 0:
        return float("nan")
    return float(np.clip(np.sum(order_p * order_m) / untied, -1.0, 1.0))


def _pairs(
    predicted: Values, measured: Values
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    p, m = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if p.shape != m.shape or p.ndim != 1:
        raise ValueError(f"predicted {p.shape} and measured {m.shape} are not of one shape (n,)")
    if not len(p):
        raise ValueError("no pair to compare; give at least one predicted and measured value")
    if not (np.isfinite(p).all() and np.isfinite(m).all()):
        raise ValueError("a value is not finite; leave failed measurements out")
    return p, m
