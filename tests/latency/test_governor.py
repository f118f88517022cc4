"""Governors are files: here, a folder of them that looks as Linux documents it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latency import governor, host_facts, session_process
from latency.session_process import cool_down, run_process

CPUS = [0, 2]
HOLD = """
import sys, time
from pathlib import Path
from latency import governor
governor.CPUS = Path(sys.argv[1])
with governor.held("performance", [0, 2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for cpu, name in ((0, "schedutil"), (1, "powersave"), (2, "ondemand")):
        folder = tmp_path / f"cpu{cpu}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")
        (folder / "scaling_available_governors").write_text("ondemand performance schedutil \n")
    monkeypatch.setattr(governor, "CPUS", tmp_path)
    return tmp_path


def now(machine: Path) -> list[str]:
    files = sorted(machine.glob("cpu*/cpufreq/scaling_governor"))
    return [file.read_text().strip() for file in files]


def test_it_is_set_and_put_back(machine: Path) -> None:
    assert governor.settable(CPUS) == ["ondemand", "performance", "schedutil"]
    with governor.held("performance", CPUS) as record:
        assert now(machine) == ["performance", "powersave", "performance"]
    assert now(machine) == ["schedutil", "powersave", "ondemand"]
    assert record == {
        "wanted": "performance",
        "before": ["ondemand", "schedutil"],
        "problem": None,
    }


def test_it_is_put_back_by_whoever_ends(machine: Path) -> None:
    with pytest.raises(KeyboardInterrupt), governor.held("performance", CPUS):
        raise KeyboardInterrupt
    assert now(machine) == ["schedutil", "powersave", "ondemand"]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(machine)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        assert now(machine) == ["performance", "powersave", "performance"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    end = time.monotonic() + 10
    while now(machine) != ["schedutil", "powersave", "ondemand"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_cannot_be_set_is_said_and_nothing_touched(machine: Path) -> None:
    with governor.held("turbo", CPUS) as record:
        assert now(machine) == ["schedutil", "powersave", "ondemand"]
    assert record["problem"] == "not permitted, or not offered"
    with governor.held("performance", [7]) as record:
        pass
    assert record["problem"] == "no frequency governor here"
    assert governor.settable([7]) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anything")
def test_without_permission(machine: Path) -> None:
    (machine / "cpu2/cpufreq/scaling_governor").chmod(0o444)
    with governor.held("performance", CPUS) as record:
        assert now(machine) == ["schedutil", "powersave", "ondemand"]
    assert record["problem"] == "not permitted, or not offered"


def test_a_session_runs_under_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "temperatures_c", lambda: {"zone0": 41.0})
    script = (
        "import json, pathlib, sys; sys.stdin.readline();"
        f"now = pathlib.Path({str(machine / 'cpu0/cpufreq/scaling_governor')!r}).read_text();"
        "print(json.dumps({'reply': {'facts': {'seen': now}}}))"
    )
    request = {
        "models": [{"sha256": "0"}],
        "affinity": CPUS,
        "prepare": {"governor": "performance", "cool_to_c": 60},
    }
    outcome = run_process([sys.executable, "-c", script], request, timeout_s=30)
    facts = outcome["reply"]["facts"]
    assert facts["seen"] == "performance"
    assert facts["prepared"]["governor"]["before"] == ["ondemand", "schedutil"]
    assert facts["prepared"]["cooling"]["hottest_c"] == 41.0
    assert now(machine) == ["schedutil", "powersave", "ondemand"]
    # Without models a session looks only whether the runtime is there
    bare = run_process([sys.executable, "-c", script], {**request, "models": []}, timeout_s=30)
    assert bare["reply"]["facts"]["prepared"] == {}


def test_cooling_waits_for_the_hottest_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([{"a": 50.0, "b": 71.0}, {"a": 52.0, "b": 66.0}, {"a": 53.0, "b": 59.5}])
    monkeypatch.setattr(host_facts, "temperatures_c", lambda: next(readings))
    record = cool_down(60, pause_s=0.01)
    assert record["hottest_c"] == 59.5
    monkeypatch.setattr(host_facts, "temperatures_c", lambda: {"a": 80.0})
    record = cool_down(60, longest_s=0.05, pause_s=0.01)
    assert (record["hottest_c"], record["limit_c"]) == (80.0, 60)
    monkeypatch.setattr(host_facts, "temperatures_c", dict[str, float])
    assert session_process.cool_down(60)["hottest_c"] is None
