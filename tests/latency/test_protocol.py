import dataclasses
import hashlib
import math
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from latency.artifact import Artifact
from latency.backend import DeviceLostError, ModelRejectedError, SessionTimeoutError
from latency.database import connect
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.protocol import measure
from latency.store import LatencyStore, SessionRecord
from latency.timing import TimingConfig
from search_spaces.errors import UserError
from tests.latency.fake_backend import FakeBackend


def fake_artifact(name: str) -> Artifact:
    return Artifact(
        path=Path(f"{name}.onnx"),
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        feeds=Path(f"{name}.npz"),
        signature="x float32[1]",
    )


A = [fake_artifact(f"model-{i}") for i in range(12)]
LATENCY = {artifact.sha256: (i + 1) * 5e5 for i, artifact in enumerate(A)}
TIMING = dataclasses.replace(TimingConfig.standard(), cooldown_s=0.0, backoff_s=0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LatencyStore]:
    connection = connect(tmp_path / "run.db")
    yield LatencyStore(connection)
    connection.close()


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests run side by side, and beside real measurements
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_latency_is_ratio_times_baseline(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY)
    results = measure(A[:3], backend=backend, timing=TIMING, store=store)
    for artifact in A[:3]:
        one = results[artifact.sha256]
        assert (one.status, one.quick, one.sessions) == ("ok", False, 5)
        assert one.median_ns == pytest.approx(LATENCY[artifact.sha256], rel=0.01)
        assert one.low_ns is not None
        assert one.high_ns is not None
        assert one.low_ns < one.median_ns < one.high_ns
        logs = np.log(list(one.session_ratios.values()))
        assert one.ratio == pytest.approx(math.exp(logs.mean()))
    assert len(backend.sessions) == 5


def test_a_slower_day_gives_the_same_latency(store: LatencyStore) -> None:
    timing = dataclasses.replace(TIMING, sentinel_limit=10.0)
    first = measure(A[:1], backend=FakeBackend(LATENCY), timing=timing, store=store)
    slow = FakeBackend(LATENCY, speed=lambda session: 1.5)
    second = measure(A[1:2], backend=slow, timing=timing, store=store)
    assert first[A[0].sha256].median_ns == pytest.approx(5e5, rel=0.01)
    assert second[A[1].sha256].median_ns == pytest.approx(1e6, rel=0.01)
    assert first[A[0].sha256].baseline_ns == second[A[1].sha256].baseline_ns


def test_a_baseline_from_a_busy_day_is_told(store: LatencyStore) -> None:
    busy = FakeBackend(LATENCY, speed=lambda session: 1.5)
    measure(A[:1], backend=busy, timing=TIMING, store=store)
    told: list[str] = []
    measure(
        A[1:2],
        backend=FakeBackend(LATENCY),
        timing=TIMING,
        store=store,
        progress=lambda done, total, text: told.append(text),
    )
    assert "1.50 times faster than when its baseline was taken" in told[-1]


def test_nothing_finished_is_repeated(store: LatencyStore) -> None:
    first = FakeBackend(LATENCY)
    one = measure(A[:3], backend=first, timing=TIMING, store=store)
    again = FakeBackend(LATENCY)
    assert measure(A[:3], backend=again, timing=TIMING, store=store) == one
    assert again.sessions == []
    measure(A[:4], backend=again, timing=TIMING, store=store)
    assert again.sessions == [[A[3].sha256]] * 5


def test_groups_share_their_sessions(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY)
    pairs = [A[i : i + 2] for i in range(0, 12, 2)]
    results = measure(pairs, backend=backend, timing=TIMING, store=store)
    assert all(len(session) <= 8 for session in backend.sessions)
    for left, right in pairs:
        shared = results[left.sha256].session_ratios
        assert list(shared) == list(results[right.sha256].session_ratios)
    counts = Counter(sha for session in backend.sessions for sha in session)
    assert set(counts.values()) == {5}


def test_noise_asks_for_more_sessions_and_ends_unstable(store: LatencyStore) -> None:
    some = measure(A[:1], backend=FakeBackend(LATENCY, noise=0.02), timing=TIMING, store=store)
    assert 5 < some[A[0].sha256].sessions <= 20
    wild = FakeBackend(LATENCY, noise=0.3)
    timing = dataclasses.replace(TIMING, sentinel_limit=100.0)
    one = measure(A[1:2], backend=wild, timing=timing, store=store)[A[1].sha256]
    assert (one.status, one.sessions, len(wild.sessions)) == ("unstable", 20, 20)
    assert one.median_ns is not None
    assert "%" in one.message


def test_drift_discards_and_counts(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY, drift=lambda session: 0.05 if session < 3 else 0.02)
    one = measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256]
    assert (one.status, one.sessions, one.discarded) == ("ok", 5, 3)
    assert len(backend.sessions) == 8


def test_drift_alone_gives_an_unstable_latency(store: LatencyStore) -> None:
    always = FakeBackend(LATENCY, drift=lambda session: -0.05)
    one = measure(A[1:2], backend=always, timing=TIMING, store=store)[A[1].sha256]
    assert (one.status, one.discarded, len(always.sessions)) == ("unstable", 20, 20)
    assert one.median_ns == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize(
    ("speed", "discarded"), [(1.0, 0), (1.04, 0), (1.07, 4), (1 / 1.15, 4), (1.3, 4)]
)
def test_drift_counts_unless_the_rounds_were_calm(
    store: LatencyStore, speed: float, discarded: int
) -> None:
    """Known to be calm: a session that was as fast as those before. Any other may have drifted."""
    measure(A[:1], backend=FakeBackend(LATENCY, noise=0.0), timing=TIMING, store=store)
    backend = FakeBackend(
        LATENCY,
        noise=0.0,
        speed=lambda session: speed if session < 4 else 1.0,
        drift=lambda session: 0.4 if session < 4 else 0.0,
    )
    one = measure(A[1:2], backend=backend, timing=TIMING, store=store)[A[1].sha256]
    assert (one.status, one.discarded, one.sessions) == ("ok", discarded, 5)
    assert len(backend.sessions) == 5 + discarded


def test_sentinel_cools_down_three_times_then_marks(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY, speed=lambda session: 1.0 if session < 4 else 1.2)
    one = measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256]
    assert len(backend.sessions) == 4 + 3 + 1
    assert (one.status, one.sessions, one.hot_sessions) == ("ok", 5, 1)


@pytest.mark.parametrize("slower", [1.2, 1.07])
def test_a_session_knows_the_calm_anchor_and_waits_while_that_may_help(
    store: LatencyStore, slower: float
) -> None:
    busy = range(6, 9)
    backend = FakeBackend(
        LATENCY, speed=lambda session: slower if session in busy else 1.0, noise=0.0
    )
    timing = dataclasses.replace(TIMING, min_sessions=12)
    measure(A[:1], backend=backend, timing=timing, store=store)
    told = [timing.baseline_ns for timing in backend.timings]
    assert told == [None] + [1e6] * (len(told) - 1)
    shares = [timing.patience / TIMING.patience for timing in backend.timings]
    assert shares == [1] * 7 + [1 / 2, 1 / 4, 1 / 4] + [1] * (len(shares) - 10)


def test_sessions_whose_blocks_were_disturbed_are_waited_for_less(store: LatencyStore) -> None:
    """Also in the next call: what is stored decides, so that a restart does as it did before."""
    backend = FakeBackend(LATENCY, disturbed=lambda session: 0.6, noise=0.0)
    measure(A[:1], backend=backend, timing=TIMING, store=store)
    measure(A[1:2], backend=backend, timing=TIMING, store=store)
    shares = [timing.patience / TIMING.patience for timing in backend.timings]
    assert shares == [1, 1 / 2, *[1 / 4] * 8]


def test_a_device_that_is_busy_at_first_has_the_baseline_of_its_calm_sessions(
    store: LatencyStore,
) -> None:
    backend = FakeBackend(LATENCY, speed=lambda session: 1.6 if session < 3 else 1.0, noise=0.0)
    one = measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256]
    assert one.sessions == 5
    assert one.baseline_ns == 1e6


def test_one_fast_session_does_not_become_the_baseline(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY, speed=lambda session: 1.0 if session else 0.85, noise=0.0)
    one = measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256]
    # Until four sessions say so the others pass for slow ones: three are thrown away
    assert (one.baseline_ns, len(backend.sessions)) == (1e6, 3 + 5)


@pytest.mark.parametrize(
    ("anchors", "baseline"),
    [
        ([1.0], 1.0),
        ([1.0, 0.85], 0.85),
        ([1.6, 1.0, 1.6], 1.0),
        ([1.0, 0.85, 1.0, 1.0], 1.0),
        ([1.6, 1.0, 1.02, 1.6], 1.01),
        ([1.0, 1.6, 1.0, 1.6, 1.6, 1.6, 1.6, 0.98], 1.0),
        ([0.85, 1.6, 1.6, 1.6], 1.6),
    ],
)
def test_the_calm_state_is_what_a_quarter_is_faster_than(
    store: LatencyStore, anchors: list[float], baseline: float
) -> None:
    device = store.add_device({"soc": "fake"})
    for number, anchor in enumerate(anchors):
        record = SessionRecord(
            session_id=str(number),
            outcome="accepted",
            seed=0,
            started_at="",
            ended_at="",
            timing={},
            anchor_ns=anchor,
            models=(),
        )
        store.add_session(device, 1, "standard", record)
    found = store.current_baseline(device, 1)
    assert found is not None
    assert found.anchor_ns == pytest.approx(baseline)


def test_patience_has_limits() -> None:
    with pytest.raises(ValueError, match=r"^patience -1 is not within 0 and 5$"):
        dataclasses.replace(TIMING, patience=-1)


def test_a_throttled_session_is_discarded_and_repeated(store: LatencyStore) -> None:
    # As hot as that, and no slower: the anchor alone would not tell
    reasons = {1: ["GPU thermal slowdown by hardware"], 4: ["GPU power brake"]}
    backend = FakeBackend(LATENCY, throttled=lambda session: reasons.get(session, []))
    one = measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256]
    assert (one.status, one.sessions, one.hot_sessions, len(backend.sessions)) == ("ok", 5, 0, 7)
    rows = store.sessions(store.add_device(backend.fingerprint()))
    assert [row["outcome"] for row in rows] == [
        *("accepted", "hot", "accepted", "accepted", "hot", "accepted", "accepted")
    ]
    assert rows[1]["message"] == "the device held itself back: GPU thermal slowdown by hardware"
    always = FakeBackend(LATENCY, throttled=lambda session: ["GPU power brake"])
    one = measure(A[1:2], backend=always, timing=TIMING, store=store)[A[1].sha256]
    assert (one.sessions, one.hot_sessions, len(always.sessions)) == (5, 5, 3 + 5)


def test_rejected_is_final_and_spares_the_others(store: LatencyStore) -> None:
    def mishap(session: int, models: Sequence[Artifact]) -> None:
        if A[1] in models:
            raise ModelRejectedError({A[1].sha256: "no such operator"})

    backend = FakeBackend(LATENCY, mishap=mishap)
    results = measure([A[:2], A[2]], backend=backend, timing=TIMING, store=store)
    assert results[A[1].sha256].status == "rejected"
    assert results[A[1].sha256].message == "no such operator"
    assert results[A[1].sha256].median_ns is None
    assert results[A[0].sha256].status == results[A[2].sha256].status == "ok"
    assert len(backend.sessions) == 6
    again = FakeBackend(LATENCY)
    assert measure([A[:2], A[2]], backend=again, timing=TIMING, store=store) == results
    assert again.sessions == []


def test_a_rejected_anchor_is_the_users_concern(store: LatencyStore) -> None:
    def mishap(session: int, models: Sequence[Artifact]) -> None:
        raise ModelRejectedError({models[0].sha256: "no LayerNormalization"})

    with pytest.raises(UserError, match="anchor model fails on fake: no LayerNormalization"):
        measure(A[:1], backend=FakeBackend(LATENCY, mishap=mishap), timing=TIMING, store=store)


def test_timeout_is_a_state_after_a_retry(store: LatencyStore) -> None:
    def mishap(session: int, models: Sequence[Artifact]) -> None:
        if A[0] in models:
            raise SessionTimeoutError("too long", A[0].sha256)

    backend = FakeBackend(LATENCY, mishap=mishap)
    results = measure(A[:2], backend=backend, timing=TIMING, store=store)
    assert results[A[0].sha256].status == "timeout"
    assert results[A[1].sha256].status == "ok"
    assert len(backend.sessions) == 2 + 5


def test_lost_is_retried_three_times(store: LatencyStore) -> None:
    def once(session: int, models: Sequence[Artifact]) -> None:
        if session in (0, 2):
            raise DeviceLostError("cable")

    backend = FakeBackend(LATENCY, mishap=once)
    assert measure(A[:1], backend=backend, timing=TIMING, store=store)[A[0].sha256].status == "ok"

    def gone(session: int, models: Sequence[Artifact]) -> None:
        raise DeviceLostError("unplugged")

    backend = FakeBackend(LATENCY, mishap=gone)
    one = measure(A[:2], backend=backend, timing=TIMING, store=store)
    assert len(backend.sessions) == 4
    assert one[A[0].sha256].status == "ok"
    assert (one[A[1].sha256].status, one[A[1].sha256].message) == ("lost", "unplugged")
    # Not final: the device may be back
    back = measure(A[:2], backend=FakeBackend(LATENCY), timing=TIMING, store=store)
    assert back[A[1].sha256].status == "ok"


def test_a_model_that_kills_the_process_does_not_stop_the_others(store: LatencyStore) -> None:
    def mishap(session: int, models: Sequence[Artifact]) -> None:
        if A[5] in models:
            raise DeviceLostError("SIGSEGV", A[5].sha256)

    backend = FakeBackend(LATENCY, mishap=mishap)
    results = measure(A, backend=backend, timing=TIMING, store=store)
    states = {artifact: results[artifact.sha256].status for artifact in A}
    assert states.pop(A[5]) == "lost"
    assert set(states.values()) == {"ok"}


def test_standard_satisfies_quick_but_not_the_reverse(store: LatencyStore) -> None:
    quick = dataclasses.replace(TimingConfig.quick(), cooldown_s=0.0)
    first = measure(A[:1], backend=FakeBackend(LATENCY), timing=quick, store=store)
    assert first[A[0].sha256].quick
    backend = FakeBackend(LATENCY)
    results = measure(A[:2], backend=backend, timing=TIMING, store=store)
    assert len(backend.sessions) == 5
    assert not results[A[0].sha256].quick
    backend = FakeBackend(LATENCY)
    results = measure(A[:2], backend=backend, timing=quick, store=store)
    assert backend.sessions == []
    assert not results[A[0].sha256].quick


def test_another_fingerprint_starts_anew(store: LatencyStore) -> None:
    measure(A[:1], backend=FakeBackend(LATENCY), timing=TIMING, store=store)
    other = FakeBackend(LATENCY)
    other.facts = {"soc": "another"}
    measure(A[:1], backend=other, timing=TIMING, store=store)
    assert len(other.sessions) == 5


def test_bad_groups(store: LatencyStore) -> None:
    backend = FakeBackend(LATENCY)
    with pytest.raises(ValueError, match="group of 9 artifacts"):
        measure([A[:9]], backend=backend, timing=TIMING, store=store)
    other = dataclasses.replace(A[0], signature="x float32[2]")
    with pytest.raises(ValueError, match="two input shapes"):
        measure([A[0], other], backend=backend, timing=TIMING, store=store)


def test_progress_counts(store: LatencyStore) -> None:
    seen: list[tuple[float, int, str]] = []
    measure(
        A[:2],
        backend=FakeBackend(LATENCY),
        timing=TIMING,
        store=store,
        progress=lambda done, total, text: seen.append((done, total, text)),
    )
    # Five sessions are the least, and each of the first four brings as much.
    assert [done for done, _, _ in seen] == pytest.approx([0.36, 0.72, 1.08, 1.44, 2])
    assert seen[-1][1:] == (2, "session of 2 models accepted")


def test_real_models_end_to_end(
    store: LatencyStore, models: dict[str, Artifact], tiny: TimingConfig
) -> None:
    wanted = [models["small"], models["large"], models["wrong"]]
    backend = OnnxRuntimeBackend(threads=1)
    results = measure(wanted, backend=backend, timing=tiny, store=store)
    small, large, wrong = (results[model.sha256] for model in wanted)
    assert wrong.status == "rejected"
    assert "differs from the reference" in wrong.message
    assert small.median_ns is not None
    assert large.median_ns is not None
    assert 0 < small.median_ns < large.median_ns
    session_id = next(iter(small.session_ratios))
    assert len(store.blocks(session_id, wanted[0].sha256)) == tiny.rounds


_MEASURE = """
import sys
from dataclasses import replace
from pathlib import Path
from latency.artifact import load_artifact
from latency.database import connect
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.protocol import measure
from latency.store import LatencyStore
from latency.timing import TimingConfig
import tempfile
database, lease, *models = sys.argv[1:]
tempfile.tempdir = lease
timing = TimingConfig(mode="quick", min_sessions=2, max_sessions=2, rounds=2, block_ms=20.0,
    warmup_s=0.02, interval_target=100.0, drift_limit=100.0, sentinel_limit=100.0,
    candidates_per_session=1)
store = LatencyStore(connect(Path(database)))
backend = OnnxRuntimeBackend(threads=1)
models = [load_artifact(Path(m)) for m in models]
results = measure(models, backend=backend, timing=timing, store=store)
print(sum(one.sessions for one in results.values()))
"""


@pytest.mark.slow
def test_killed_between_sessions_resumes(tmp_path: Path, models: dict[str, Artifact]) -> None:
    database = tmp_path / "killed.db"
    paths = [str(models[name].path) for name in ("small", "large")]
    command = [sys.executable, "-c", _MEASURE, str(database), str(tmp_path), *paths]

    def stored() -> list[str]:
        try:
            connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
        except sqlite3.OperationalError:
            return []
        try:
            rows = connection.execute("SELECT session_id FROM latency_sessions ORDER BY number")
            return [row[0] for row in rows]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while len(stored()) < 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = stored()
    assert 1 <= len(before) < 4
    resumed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert resumed.stdout.strip() == "4"
    after = stored()
    assert after[: len(before)] == before
    assert len(after) == 4
