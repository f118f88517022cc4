"""Run directories: names per device, locking, and what may not change."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nas.config import load_config
from nas.lock import Lock
from nas.run import Run
from nas.run_directory import RunDirectory, short
from search_spaces.errors import UserError

YAML = """
output: runs/digits
task: {kind: image-classification, data: digits}
space: {embed: [32, 64], depth: [2, 4], heads: [1, 2], ffn: [32, 64]}
"""


@pytest.fixture
def yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(YAML)
    return Path("my.yaml")


def test_a_new_run_keeps_its_configuration_and_environment(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        directory = run.directory
        assert run.device == "cpu"
        assert load_config(directory.config) == config
        environment = json.loads(directory.environment.read_text())
        assert environment["packages"]["torch"]
        assert environment["schema"] == 1
        assert run.store.count() == 0
        assert run.console.stderr
    names = {path.name for path in directory.path.iterdir()}
    assert names >= {"config.yaml", "environment.json", "events.jsonl", "run.db", ".lock"}


def test_the_environment_names_no_person_and_no_place(yaml):
    with Run.open(load_config(yaml)) as run:
        text = run.directory.environment.read_text()
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4


def test_a_changed_environment_is_an_event(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        run.directory.environment.write_text('{"schema": 1, "python": "2.7"}')
    with Run.open(config) as run:
        pass
    with Run.open(config) as run:
        events = [event["event"] for event in run.events.read()]
        assert run.events.read()[-1]["python"] != "2.7"
    assert events == ["environment", "environment"]


def test_the_first_device_owns_the_plain_names(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        assert run.directory.table.name == "table.json"
        run.directory.table.write_text("{}")
    with Run.open(config, "cpu-1t") as run:
        directory = run.directory
        assert run.device == "cpu-1t"
        assert directory.table.name == "table.cpu-1t.json"
        assert directory.search.name == "search.cpu-1t.json"
        assert directory.front.name == "front.cpu-1t.json"
        assert directory.front_csv.name == "front.cpu-1t.csv"
        assert directory.report.name == "report.cpu-1t.html"
        assert directory.exports == directory.path / "exports" / "cpu-1t"
        assert directory.supernet.name == "supernet.safetensors"
    with Run.open(config) as run:
        assert run.directory.table.name == "table.json"
        assert run.directory.exports == run.directory.path / "exports"


def test_a_device_without_files_is_not_the_first(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        run.directory.supernet.write_bytes(b"")
    with Run.open(config, "cpu-1t") as run:
        assert run.directory.report.name == "report.html"
        run.directory.report.write_text("")
    with Run.open(config) as run:
        assert run.directory.report.name == "report.cpu.html"


def test_the_device_of_the_command_line_is_not_kept(yaml):
    with Run.open(load_config(yaml), "cpu-1t") as run:
        assert load_config(run.directory.config).device == "cpu"


def test_an_unknown_device_makes_nothing(yaml):
    with pytest.raises(UserError, match="device 'gpu' is not one of"):
        Run.open(load_config(yaml), "gpu")
    assert not Path("runs").exists()


def test_a_second_run_is_refused_while_the_first_one_works(yaml):
    config = load_config(yaml)
    with Run.open(config), pytest.raises(UserError) as caught:
        Run.open(config)
    assert str(caught.value) == (
        f"runs/digits is in use by another nas command (process {os.getpid()}); wait until it "
        "ends, or give this one its own directory with output=DIRECTORY"
    )
    Run.open(config).close()


def test_looking_needs_no_lock(yaml):
    config = load_config(yaml)
    with pytest.raises(UserError, match="runs/digits is not a run directory yet; start with nas"):
        Run.open(config, exclusive=False)
    assert not Path("runs").exists()
    with Run.open(config), Run.open(config, exclusive=False) as second:
        assert second.store.count() == 0


def test_a_failed_opening_keeps_no_lock(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        database = run.directory.database
    database.write_text("not a database, but long enough to be taken for one" * 100)
    for _ in range(2):
        with pytest.raises(UserError, match=r"run\.db"):
            Run.open(config)
    database.unlink()
    Run.open(config).close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_goes_with_its_process_even_when_workers_live_on(tmp_path, sign):
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from nas.lock import Lock
        lock = Lock(Path(sys.argv[1]))
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)  # by now it has let the lock go
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        """
    )
    path = tmp_path / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UserError, match=f"process {process.pid}"):
            Lock(path)
        process.send_signal(sign)
        process.wait()
        lock = Lock(path)
        lock.release()
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_settings_of_a_trained_run_stay(yaml):
    with Run.open(load_config(yaml)) as run:
        directory = run.directory
    # Until training has begun nothing is lost by a change.
    with Run.open(load_config(yaml, ["training.steps=7"])) as run:
        run.directory.training_log.write_text("")
    with pytest.raises(UserError) as caught:
        Run.open(load_config(yaml, ["training.steps=8"]))
    assert str(caught.value) == (
        "training.steps is 8, but runs/digits was trained with 7; give another directory with "
        "output=DIRECTORY, or delete runs/digits"
    )
    assert load_config(directory.config).training.steps == 7
    with Run.open(load_config(yaml, ["training.steps=7", "search.budget=3"])):
        assert load_config(directory.config).search.budget == 3


def test_a_file_in_the_way(yaml):
    Path("runs").write_text("")
    with pytest.raises(UserError, match="output runs/digits cannot be a directory, since a file"):
        Run.open(load_config(yaml))
    with pytest.raises(UserError, match="output runs cannot be a directory, since a file"):
        Run.open(load_config(yaml, ["output=runs"]))


def test_the_root_is_no_run_directory(yaml):
    before = set(Path("/").iterdir())
    for output in ("/", "/../"):
        with pytest.raises(UserError, match="is the root of the file system"):
            Run.open(load_config(yaml, [f"output={output}"]))
    assert set(Path("/").iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_made(yaml):
    Path("runs").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"cannot write .*runs/digits: permission denied"):
        Run.open(load_config(yaml))


def test_leftovers_of_a_killed_run_go(yaml):
    config = load_config(yaml)
    with Run.open(config) as run:
        leftover = run.directory.path / ".front.json.99999999.tmp"
        leftover.write_text("half")
    with Run.open(config):
        assert not leftover.exists()


def test_short_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "runs" / "a") == "runs/a"
    assert short(Path("/somewhere/else")) == "/somewhere/else"


def test_a_corrupt_device_record_is_named(tmp_path):
    (tmp_path / "devices.json").write_text("{")
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(UserError, match=r"devices\.json is not valid JSON"):
        RunDirectory(tmp_path, "cpu")


def test_an_output_that_cannot_be_made_is_named():
    with pytest.raises(UserError, match=r"output /proc/run cannot be made: .*output=DIRECTORY"):
        RunDirectory(Path("/proc/run"), "cpu-1t").make()
