"""A search on a cluster: the front of one without, also when its head is killed meanwhile."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

YAML = """
output: alone
device: cpu-1t
task: {kind: image-classification, data: digits, batch_size: 16}
space: {patch_size: 4, head_dim: 4, embed: [8], depth: [1, 2, 3], heads: [1, 2], ffn: [8, 16, 32]}
training: {steps: 30, warmup_steps: 5, threads: 1, log_every: 10}
search: {objectives: [cross_entropy, macs], budget: 36, population: 8, algorithm: nsga2}
"""
# Without a latency among the objectives no table is needed but as a stage's file.
DRIVER = """
import sys
import nas.stages.search
from nas.cli import main
nas.stages.search.load_predictors = lambda run, space: {}
sys.exit(main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0


def start(folder, *arguments):
    log, out = (folder / "log").open("ab"), (folder / "out").open("wb")
    with log, out:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER, *arguments],
            cwd=folder,
            stdout=out,
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


def rows(directory):
    with closing(sqlite3.connect(directory / "run.db")) as connection:
        return connection.execute(
            "SELECT id, architecture, metrics FROM evaluations ORDER BY id"
        ).fetchall()


def test_the_head_is_killed_and_begins_again(tmp_path):
    (tmp_path / "my.yaml").write_text(YAML)
    finish(tmp_path, "train", "my.yaml")
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "alone", killed)
    known = len(rows(killed))
    finish(tmp_path, "search", "my.yaml")

    on_cluster = ("search", "my.yaml", "output=killed", "cluster.address=local", "--json")
    process = start(tmp_path, *on_cluster)
    try:
        deadline = time.monotonic() + LIMIT_S
        while len(rows(killed)) < known + 10:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "never got there"
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it had ended before it was killed"
    before = rows(killed)
    assert not (killed / "search.json").exists()

    finish(tmp_path, *on_cluster)
    after = rows(killed)
    assert after[: len(before)] == before  # nothing that was finished is lost, or done again
    alone = rows(tmp_path / "alone")
    assert sorted(row[1:] for row in after) == sorted(row[1:] for row in alone)
    assert (killed / "search.json").read_bytes() == (tmp_path / "alone/search.json").read_bytes()

    summary = json.loads((tmp_path / "out").read_text())  # one document, whatever Ray says
    assert summary["exit_code"] == 0
    assert summary["evaluated_now"] == len(after) - len(before)
    log = (tmp_path / "log").read_text()
    assert "Cluster: 2 workers of CPU 1 on 1 node, " in log or "Cluster: 1 worker of CPU 1" in log
    events = [json.loads(line) for line in (killed / "events.jsonl").read_text().splitlines()]
    begun = [event for event in events if event["event"] == "cluster_started"]
    assert len(begun) == 2
    assert begun[0]["threads"] == 1
    assert begun[0]["supernet"] == json.loads((killed / "supernet.json").read_text())["hash"]
