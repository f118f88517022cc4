"""What measured latencies err, told from their sessions."""

import numpy as np
import pytest

from latency.noise import Noise, session_noise
from latency.session_effects import without_session_effects
from latency.store import History


def sessions(rng, count, models=8, *, own, shared):
    """The history of models that share all their sessions."""
    common = shared * rng.standard_normal(count)
    return {
        (str(model), ""): [
            History(
                session_id=str(session),
                outcome="accepted",
                hot=False,
                status="ok",
                ratio=float((model + 1) * np.exp(effect + own * rng.standard_normal())),
                message="",
            )
            for session, effect in enumerate(common)
        ]
        for model in range(models)
    }


@pytest.mark.parametrize(("own", "shared"), [(0.02, 0.01), (0.01, 0.03), (0.02, 0.0)])
@pytest.mark.parametrize("count", [5, 20])
def test_both_parts_are_found(own, shared, count):
    found = []
    for seed in range(100):
        history = sessions(np.random.default_rng(seed), count, own=own, shared=shared)
        adjusted = without_session_effects(history, list(history)).values()
        ratios = [{e.session_id: e.ratio for e in one.entries} for one in adjusted]
        found.append(session_noise(ratios, max(one.shared for one in adjusted)))
    of_mean = np.sqrt(np.mean([noise.own**2 for noise in found]))
    assert of_mean == pytest.approx(own / count**0.5, rel=0.2)
    common = np.sqrt(np.mean([noise.shared**2 for noise in found]))
    # The medians of eight models are not free of their own errors
    of_medians = 1.25 * own / 8**0.5
    wanted = np.hypot(shared, of_medians) / count**0.5
    assert common == pytest.approx(wanted, rel=0.25, abs=0.0015)


def test_too_few_to_tell():
    assert session_noise([]) == Noise()
    assert session_noise([{"a": 1.0}, {"a": 2.0}], 0.01) == Noise(shared=0.01)
