"""From the blocks of a session to one ratio, and from sessions to an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

Z_95 = 1.96
"""Standard deviations of a normal error to each end of its two-sided 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of logarithms over sessions with its 95 % interval."""

    log_mean: float
    """Mean of log(candidate / anchor)."""
    half_width: float
    """Half-width of its two-sided 95 % t-interval; infinite for fewer than two sessions."""

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios."""
        return math.exp(self.log_mean)


def session_ratio(candidate_ns: Sequence[float], anchor_ns: Sequence[float]) -> float:
    """Candidate over anchor in one session: the median over rounds of the rounds' own ratios.

    Neighbours in time share the clock, the temperature and the foreign load, so the ratio is
    taken within each round; the median then drops the rounds that a burst of load has hit.

    Args:
        candidate_ns: A block latency per round, ns.
        anchor_ns: The anchor's, for the same rounds in the same order, ns.

    Raises:
        ValueError: The rounds do not match or there are none.
    """
    if len(candidate_ns) != len(anchor_ns) or not candidate_ns:
        raise ValueError(f"{len(candidate_ns)} candidate rounds, {len(anchor_ns)} anchor rounds")
    return median(c / a for c, a in zip(candidate_ns, anchor_ns, strict=True))


def log_interval(ratios: Sequence[float]) -> Interval:
    """95 % t-interval of the logarithm of the ratios, a ratio per session.

    Raises:
        ValueError: No ratio, or one that is not positive.
    """
    if not ratios or min(ratios) <= 0:
        raise ValueError(f"ratios must be positive and at least one, got {list(ratios)[:5]}")
    logs = [math.log(ratio) for ratio in ratios]
    if len(logs) < 2:
        return Interval(log_mean=logs[0], half_width=math.inf)
    half_width = t_quantile(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Interval(log_mean=fmean(logs), half_width=half_width)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t: the factor of a two-sided 95 % interval."""
    # scipy.special alone loads in a tenth of the time of scipy.stats
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t-interval; the width is infinite for one value.

    Raises:
        ValueError: No value.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    if len(values) < 2:
        return values[0], math.inf
    return fmean(values), t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
