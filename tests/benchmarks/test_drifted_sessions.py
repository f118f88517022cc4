"""`python -m benchmarks.drifted_sessions` on a store whose sessions deviate by what is known."""

import hashlib
import math
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import drifted_sessions
from latency.artifact import Artifact
from latency.database import connect
from latency.protocol import PROTOCOL_VERSION
from latency.store import LatencyStore, ModelRecord, SessionRecord
from latency.timing import TimingConfig

SESSIONS = [  # anchor in ns, drift, factor of the ratio
    *[(100.0, 0.0, 1.0)] * 3,
    (100.0, 0.2, 1.02),
    (104.0, -0.04, 1.04),
    (108.0, 0.0, 1.1),
    (150.0, 0.0, 1.3),
    (200.0, 0.5, 0.5),
]


def artifact(name: str) -> Artifact:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return Artifact(path=Path(name), sha256=sha256, feeds=Path(name), signature="x float32[1]")


@pytest.fixture
def folder(tmp_path):
    with closing(connect(tmp_path / "run.db")) as connection:
        store = LatencyStore(connection)
        device = store.add_device({"soc": "fake"})
        for number, (anchor_ns, drift, factor) in enumerate(SESSIONS):
            ratios = {"anchor": 1.0, "one": 0.5 * factor, "other": 2.0 * factor}
            record = SessionRecord(
                session_id=str(number),
                outcome="accepted",
                seed=number,
                started_at="2026-01-01T00:00:00.000+00:00",
                ended_at="2026-01-01T00:00:07.000+00:00",
                timing=asdict(TimingConfig.standard()),
                anchor_ns=anchor_ns,
                drift=drift,
                models=[
                    ModelRecord(artifact=artifact(name), status="ok", ratio=ratio)
                    for name, ratio in ratios.items()
                ],
            )
            store.add_session(device, PROTOCOL_VERSION, "standard", record)
    return tmp_path


def test_sessions_are_told_by_level_and_drift(folder, capsys):
    with closing(connect(folder / "run.db")) as connection:
        store = LatencyStore(connection)
        found = drifted_sessions.deviations(store, store.add_device({"soc": "fake"}), "standard")
    expected = {
        ("calm", False): [0.0] * 6,
        ("calm", True): [math.log(1.02)] * 2 + [math.log(1.04)] * 2,
        ("a little slower", False): [math.log(1.1)] * 2,
        ("slow", False): [math.log(1.3)] * 2,
        ("slow", True): [math.log(0.5)] * 2,
    }
    assert set(found) == set(expected)
    for kind, sessions in found.items():
        values = sorted(value for own in sessions.values() for value in own)
        assert values == pytest.approx(sorted(expected[kind])), kind
    assert drifted_sessions.main([str(folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[3].split() == ["calm", "drifted", "2", "2.95", "%", "3.92", "%"]
    assert rows[5].split() == ["a", "little", "slower", "drifted", "0"]


def test_a_folder_without_a_store_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        drifted_sessions.main([str(tmp_path / "none")])
    assert "none is no run directory" in capsys.readouterr().err
