"""What measured latencies err alike, told from what each errs by itself."""

import numpy as np
import pytest

from latency.noise import Noise, session_noise


def ratios(rng, groups, sessions=5, models=8, *, own, shared):
    """Models in groups; those of a group share their sessions."""
    found = []
    for group in range(groups):
        common = shared * rng.standard_normal(sessions)
        for model in range(models):
            noise = common + own * rng.standard_normal(sessions)
            names = [f"{group}-{session}" for session in range(sessions)]
            found.append(dict(zip(names, (model + 1) * np.exp(noise), strict=True)))
    return found


@pytest.mark.parametrize(("own", "shared"), [(0.02, 0.01), (0.01, 0.03), (0.02, 0.0)])
@pytest.mark.parametrize("groups", [1, 4])
def test_both_parts_are_found(own, shared, groups):
    found = [
        session_noise(ratios(np.random.default_rng(seed), groups, own=own, shared=shared))
        for seed in range(200)
    ]
    of_mean = np.sqrt(np.mean([noise.own**2 for noise in found]))
    assert of_mean == pytest.approx(own / 5**0.5, rel=0.1)
    # Groups of their own sessions share nothing with one another, so they show it.
    common = np.sqrt(np.mean([noise.shared**2 for noise in found]))
    assert common == pytest.approx(shared / (5 * groups) ** 0.5, rel=0.15, abs=0.002)


def test_too_few_to_tell():
    assert session_noise([]) == Noise()
    assert session_noise([{"a": 1.0}, {"a": 2.0}]) == Noise()
    assert session_noise([{"a": 1.0, "b": 1.1}, {"c": 2.0, "d": 2.1}]) == Noise()
