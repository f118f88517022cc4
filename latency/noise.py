"""What sessions have in common: the error that models measured together cannot show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of the relative error of measured latencies."""

    own: float = 0.0
    """What each model errs by itself."""
    shared: float = 0.0
    """What all err alike, since they were measured in the same sessions."""


def session_noise(ratios: Sequence[Mapping[str, float]]) -> Noise:
    """Parts of the error of the models' means over sessions, by analysis of variance.

    A session's ratio is the model's, times what the session does to all its models, times what is
    left. The more sessions, and the fewer of them two models share, the smaller the shared part.

    Args:
        ratios: Of each model, candidate over anchor per session id.
    """
    deviations: dict[str, list[float]] = {}
    weights: dict[str, float] = {}
    for model in ratios:
        mean = sum(map(math.log, model.values())) / max(1, len(model))
        for session, ratio in model.items():
            weights[session] = weights.get(session, 0.0) + 1 / len(ratios) / len(model)
            if len(model) > 1:
                # The mean has taken a part of the deviation with it
                scale = math.sqrt(len(model) / (len(model) - 1))
                deviations.setdefault(session, []).append(scale * (math.log(ratio) - mean))
    together = [np.array(values) for values in deviations.values() if len(values) > 1]
    if not together:
        return Noise()
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in together)
    own = within / sum(len(values) - 1 for values in together)
    shared = max(0.0, float(np.mean(np.concatenate(together) ** 2)) - own)
    sessions = sum(map(len, ratios)) / len(ratios)
    return Noise(
        own=math.sqrt(own / sessions),
        shared=math.sqrt(shared * sum(weight**2 for weight in weights.values())),
    )
