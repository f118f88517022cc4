"""What sessions have in common: the error that models measured together cannot show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

BETWEEN_CALLS = 0.008
"""By how much models that are timed later differ alike from those timed in one call, beside what
the spread of its sessions tells: on a shared machine 0.2 to 1.4 % were seen."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of the relative error of measured latencies."""

    own: float = 0.0
    """What each model errs by itself."""
    shared: float = 0.0
    """What all err alike, since they were measured in the same sessions."""
    between: float = 0.0
    """What all err alike, since the machine is in another state later; no session tells it."""


def session_noise(ratios: Sequence[Mapping[str, float]], shared: float = 0.0) -> Noise:
    """Parts of the error of the models' means over sessions.

    Args:
        ratios: Of each model, candidate over anchor per session id, without session effects.
        shared: What all err alike; see `latency.measurement.Measurement.shared`.
    """
    logs = [[math.log(ratio) for ratio in model.values()] for model in ratios if len(model) > 1]
    if not logs:
        return Noise(shared=shared)
    own = fmean(variance(model) / len(model) for model in logs)
    return Noise(own=math.sqrt(own), shared=shared)
