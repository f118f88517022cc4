"""`nas run`, killed with SIGKILL and started again: the same weights, and nothing done twice.

`benchmarks/kill.py` does this twenty times over, and compares the fronts too.
"""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from supernet.checkpoint import load_supernet

pytestmark = pytest.mark.slow

YAML = """
output: alone
device: cpu-1t
task: {kind: image-classification, data: digits, batch_size: 16}
space: {patch_size: 4, head_dim: 4, embed: [8], depth: [1, 2], heads: [1], ffn: [8]}
training: {steps: 80, warmup_steps: 5, threads: 1, checkpoint_every_s: 0.02, log_every: 10}
latency: {correction_subnets: 1}
search: {budget: 4, population: 2, front_size: 2}
"""

# The command itself, with a shorter measuring protocol: two sessions of everything.
DRIVER = """
import sys, tempfile
from latency.timing import TimingConfig
from nas.cli import main
short = TimingConfig(
    mode="quick", min_sessions=2, max_sessions=2, rounds=2, block_ms=1.0, warmup_s=0.0,
    interval_target=100.0, drift_limit=100.0, sentinel_limit=100.0, cooldown_s=0.0,
    backoff_s=0.0, candidates_per_session=3,
)
TimingConfig.quick = classmethod(lambda cls: short)
tempfile.tempdir = sys.argv[1]
sys.exit(main(sys.argv[2:]))
"""

ROOT = Path(__file__).parents[2]
LIMIT_S = 180.0


def start(folder, *arguments):
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER, str(folder / "lease"), *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        )


def finish(folder, *arguments):
    process = start(folder, *arguments)
    try:
        assert process.wait(LIMIT_S) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


def kill_when(folder, ready, delay_s):
    """Start the run, wait until `ready`, and kill it `delay_s` later."""
    process = start(folder, "run", "my.yaml", "output=killed")
    try:
        deadline = time.monotonic() + LIMIT_S
        while not ready():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "never got there"
            time.sleep(0.01)
        time.sleep(delay_s)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it had ended before it was killed"


def rows(directory):
    """Sessions in the order in which they were stored, with their models; evaluations."""
    with closing(sqlite3.connect(directory / "run.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        sessions, evaluations = [], []
        if "latency_samples" in tables:
            sessions = connection.execute(
                "SELECT s.session_id, s.outcome, m.sha256, m.signature, m.status, m.ratio"
                " FROM latency_sessions s JOIN latency_samples m USING (number)"
                " ORDER BY s.number, m.sha256"
            ).fetchall()
        if "evaluations" in tables:
            evaluations = connection.execute(
                "SELECT supernet, split, architecture, metrics, created FROM evaluations"
                " ORDER BY id"
            ).fetchall()
    return sessions, evaluations


def test_killed_in_training_and_in_measuring(tmp_path):
    (tmp_path / "lease").mkdir()
    (tmp_path / "my.yaml").write_text(YAML)
    rng = random.Random(0)
    directory = tmp_path / "killed"
    finish(tmp_path, "train", "my.yaml")
    _, alone = load_supernet(tmp_path / "alone" / "supernet.safetensors")

    kill_when(tmp_path, (directory / "training.safetensors").exists, rng.uniform(0.0, 0.3))
    in_training = not (directory / "supernet.json").exists()

    def measuring():
        return (directory / "supernet.json").exists() and len(rows(directory)[0]) > 0

    kill_when(tmp_path, measuring, rng.uniform(0.0, 1.0))
    sessions, evaluations = rows(directory)
    assert sessions
    assert not (directory / "front.json").exists()

    finish(tmp_path, "run", "my.yaml", "output=killed")
    _, resumed = load_supernet(directory / "supernet.safetensors")
    assert in_training
    assert resumed["hash"] == alone["hash"]
    more_sessions, more_evaluations = rows(directory)
    assert more_sessions[: len(sessions)] == sessions
    assert more_evaluations[: len(evaluations)] == evaluations
    named = Counter((row[0], row[1], row[2]) for row in more_evaluations)
    assert max(named.values()) == 1
    # The anchor is in every session; any other model in two accepted ones, as the protocol wants.
    number = len({row[0] for row in more_sessions})
    timed = Counter((row[2], row[3]) for row in more_sessions if row[4] == "ok")
    anchor, *others = timed.most_common()
    assert anchor[1] == number
    assert others
    assert {count for _, count in others} == {2}
    assert (directory / "front.json").exists()
    assert not (directory / "training.safetensors").exists()
    assert not [path for path in directory.rglob("*") if path.name.endswith(".tmp")]


def test_an_interrupted_training_loses_no_step(tmp_path):
    """Between two checkpoints: what was trained is kept, and the end is the same."""
    (tmp_path / "lease").mkdir()
    rarely = YAML.replace("checkpoint_every_s: 0.02", "checkpoint_every_s: 1000")
    rarely = rarely.replace("log_every: 10", "log_every: 1").replace("steps: 80", "steps: 250")
    (tmp_path / "my.yaml").write_text(rarely)
    log = tmp_path / "interrupted" / "training.jsonl"
    process = start(tmp_path, "train", "my.yaml", "output=interrupted")
    try:
        deadline = time.monotonic() + LIMIT_S
        while not log.exists() or len(log.read_text().splitlines()) < 5:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "never got there"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert "interrupted; the same command goes on" in (tmp_path / "log").read_text()
    trained = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    finish(tmp_path, "train", "my.yaml", "output=interrupted")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[len(trained)] == trained[-1] + 1  # nothing again
    finish(tmp_path, "train", "my.yaml")
    _, resumed = load_supernet(tmp_path / "interrupted" / "supernet.safetensors")
    _, alone = load_supernet(tmp_path / "alone" / "supernet.safetensors")
    assert resumed["hash"] == alone["hash"]
