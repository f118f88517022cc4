import math
from dataclasses import replace

import numpy as np
import pytest

from latency.session_effects import ModelSessions, without_session_effects
from latency.statistics import log_interval
from latency.store import History

Sessions = dict[tuple[str, str], list[History]]


def entry(session: int, ratio: float | None) -> History:
    return History(
        session_id=str(session),
        outcome="accepted",
        hot=False,
        status="ok" if ratio else "rejected",
        ratio=ratio,
        message="",
    )


def drawn(seed: int, models: int = 24, per_model: int = 5, effect: float = 0.02) -> Sessions:
    """Models of latency 1, 2, ...; each session holds 8 of them and multiplies all alike."""
    rng = np.random.default_rng(seed)
    history: Sessions = {(f"model-{index}", ""): [] for index in range(models)}
    keys = list(history)
    for session in range(models * per_model // 8):
        fewest = sorted(keys, key=lambda key: (len(history[key]), rng.random()))[:8]
        shared = effect * rng.standard_normal()
        for key in fewest:
            error = 0.002 * rng.standard_normal()
            ratio = (keys.index(key) + 1) * math.exp(shared + error)
            history[key].append(entry(session, ratio))
    return history


def adjusted(history: Sessions) -> Sessions:
    return {key: list(one.entries) for key, one in everything(history).items()}


def everything(history: Sessions) -> dict[tuple[str, str], ModelSessions]:
    return without_session_effects(history, list(history))


def log_errors(history: Sessions) -> np.ndarray:
    """Error of every model's mean, less what all have in common, shape `(models,)`."""
    errors = [
        np.mean([math.log(e.ratio) for e in entries if e.ratio]) - math.log(index + 1)
        for index, entries in enumerate(history.values())
    ]
    return np.array(errors) - np.mean(errors)


def test_models_are_told_from_sessions() -> None:
    before, after = [], []
    for seed in range(10):
        history = drawn(seed)
        before.append(log_errors(history).std())
        after.append(log_errors(adjusted(history)).std())
    assert np.mean(after) < 0.4 * np.mean(before)


@pytest.mark.parametrize("models", [8, 24])
def test_intervals_hold_the_truth_itself(models: int) -> None:
    """Not only differences: what the mean of all sessions errs by is in the interval too."""
    inside, widths = [], []
    for seed in range(40):
        history = drawn(seed, models=models)
        for index, one in enumerate(everything(history).values()):
            interval = log_interval([e.ratio for e in one.entries if e.ratio])
            half_width = math.hypot(interval.half_width, one.shared_half_width)
            inside.append(abs(interval.log_mean - math.log(index + 1)) <= half_width)
            widths.append(half_width)
    assert 0.88 < np.mean(inside) <= 1.0
    assert np.mean(widths) < 0.04


def test_discarded_sessions_say_nothing_of_the_others() -> None:
    history = drawn(0)
    calm = everything(history)
    for key, entries in history.items():
        entries += [replace(entry(1000 + i, (1 + i) * 7.0), outcome="drift") for i in range(4)]
        assert len(entries) > 4, key
    busy = everything(history)
    for key, one in busy.items():
        assert (one.shared, one.shared_half_width) == (
            calm[key].shared,
            calm[key].shared_half_width,
        )
        assert list(one.entries[:-4]) == list(calm[key].entries)
        assert list(one.entries[-4:]) == history[key][-4:]


def test_a_model_with_nothing_but_discarded_sessions_says_nothing_of_the_others() -> None:
    history = drawn(0)
    calm = everything(history)
    sessions = sorted({e.session_id for entries in history.values() for e in entries})
    poor = [replace(entry(2000 + i, 1.5**i), outcome="drift") for i in range(4)] + [
        entry(int(sessions[0]), 1.0)
    ]
    for name in ("poor", "poorer"):
        history[name, ""] = list(poor)
    found = everything(history)
    for key, one in calm.items():
        assert found[key] == one
    assert list(found["poor", ""].entries[:4]) == poor[:4]


def test_a_latency_does_not_depend_on_who_asks() -> None:
    history = drawn(0)
    key = next(iter(history))
    assert without_session_effects(history, [key])[key] == everything(history)[key]
    apart = {("later", str(n)): [entry(100 + i, 1.0 + i) for i in range(5)] for n in range(3)}
    assert without_session_effects(history | apart, [key])[key] == everything(history)[key]


def test_a_model_alone_keeps_its_ratios() -> None:
    history: Sessions = {("only", ""): [entry(i, r) for i, r in enumerate((1.0, 1.1, 0.9))]}
    assert everything(history)["only", ""] == ModelSessions(entries=history["only", ""])


def test_an_outlier_is_not_taken_for_the_sessions_effect() -> None:
    history = drawn(0, effect=0.0)
    key = next(iter(history))
    worst = entry(int(history[key][0].session_id), 2.0)
    history[key][0] = worst
    found = adjusted(history)
    assert found[key][0].ratio == pytest.approx(2.0, rel=0.01)
    for other, entries in found.items():
        ratios = [e.ratio for e in history[other]]
        assert [e.ratio for e in entries] == pytest.approx(ratios, rel=0.01)


def test_failed_sessions_stay_as_they_are() -> None:
    history = drawn(1)
    history["broken", ""] = [entry(0, None)]
    assert adjusted(history)["broken", ""] == history["broken", ""]
