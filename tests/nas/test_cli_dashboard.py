"""`nas dashboard` as a command: what it prints, how it ends, and a real run under its eyes."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from nas.cli import main
from nas.events import read_lines
from search_spaces import Architecture
from tests.reports.fixture_run import build_vit_run

REPOSITORY = Path(__file__).parents[2]
RUN = """
name: digits
output: runs/digits
device: cpu
task: {kind: image-classification, data: digits, batch_size: 32}
space: {patch_size: 4, head_dim: 4, embed: [8], depth: [1, 2], heads: [1, 2], ffn: [8, 16]}
training: {steps: 60, warmup_steps: 5, learning_rate: 0.01, threads: 1, log_every: 5}
latency: {correction_subnets: 2}
search: {budget: 14, population: 6, front_size: 3}
"""


def launch(*arguments, script="import sys; from nas.cli import main; sys.exit(main(sys.argv[1:]))"):
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        # In the background of a shell Ctrl-C is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_by_ctrl_c(tmp_path, monkeypatch, sign):
    monkeypatch.chdir(tmp_path)
    process = launch("dashboard", "--port", "0")
    line = process.stdout.readline()
    assert line.startswith("dashboard: http://127.0.0.1:")
    assert get(f"{line.split()[1]}api/runs")["runs"] == []
    build_vit_run(tmp_path / "runs" / "digits", evaluated=20, size=3)
    (one,) = get(f"{line.split()[1]}api/runs")["runs"]
    assert one["run"] == "runs/digits"
    process.send_signal(sign)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert error == (
        "nas dashboard: no run in runs yet; those that start appear by themselves\n"
        "nas dashboard: stopped\n"
    )


def test_json_is_one_document_with_the_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_vit_run(tmp_path / "runs" / "digits", evaluated=20, size=3)
    process = launch("dashboard", "runs", "--port", "0", "--json")
    text = ""
    while not text.endswith("}\n"):
        text += process.stdout.readline()
    document = json.loads(text)
    url = document.pop("url")
    assert document == {
        "schema": 1,
        "command": "dashboard",
        "folders": [str(tmp_path / "runs")],
        "runs": 1,
    }
    assert len(get(f"{url}api/runs")["runs"]) == 1
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (130, "", "nas dashboard: stopped\n")


def test_another_address_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = launch("dashboard", "--host", "0.0.0.0", "--port", "0")
    assert process.stderr.readline() == (
        "nas dashboard: warning: --host 0.0.0.0 lets everyone who reaches this address see the "
        "runs and download their exports; there is no password\n"
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "x"], "argument --port: invalid int value: 'x'; see nas dashboard --help\n"),
        (["--port", "65536"], "--port 65536 is not in 0 to 65535; 0 takes a free one\n"),
        (["--host", ""], "--host is empty; give an address of this host, as 127.0.0.1\n"),
        (["file"], "file is a file; name the folder that runs lie in, or a run directory\n"),
        (
            ["--host", "203.0.113.9", "--port", "0"],
            "--host 203.0.113.9 is no address of this host; leave it out, or give one that is\n",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["dashboard", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"nas dashboard: {expected}"
    assert main(["dashboard", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_a_port_in_use_is_one_line_with_the_next_step(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dashboard", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"nas dashboard: port {port} of 127.0.0.1 is in use, by another dashboard perhaps; give "
        f"another one with --port {port + 1 if port < 65535 else 0}, or --port 0 for a free one\n"
    )


@pytest.mark.slow
def test_a_run_under_the_eyes_of_a_dashboard(tmp_path, monkeypatch):
    """Both at once, all stages seen, the run as if alone; and each command gives its subnet."""
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text(RUN)
    (tmp_path / "lease").mkdir()
    page = launch("dashboard", "--port", "0")
    url = page.stdout.readline().split()[1]
    short = """
        import sys, tempfile
        from latency.timing import TimingConfig
        from nas.cli import main
        from tests.nas.short_protocol import short_timing
        TimingConfig.quick = classmethod(short_timing)
        tempfile.tempdir = sys.argv.pop(1)
        sys.exit(main(sys.argv[1:]))
        """
    run = launch(str(tmp_path / "lease"), "run", "digits.yaml", script=short)
    seen, progress = [], set()
    while run.poll() is None:
        for one in get(f"{url}api/runs")["runs"]:
            seen.append(one["stage"])
            if one["progress"] is not None:
                progress.add(one["stage"])
            get(f"{url}api/runs/{quote(one['id'], safe='')}")
        time.sleep(0.02)
    _, error = run.communicate()
    assert run.returncode == 0, error
    stages = list(dict.fromkeys(seen))
    working = [stage for stage in stages if stage not in ("unfinished", "done", "interrupted")]
    assert working == ["training", "measuring", "searching", "exporting"]
    assert "training" in progress
    (one,) = get(f"{url}api/runs")["runs"]
    assert one["stage"] == "done"
    failed = [e for e in read_lines(Path("runs/digits/events.jsonl")) if "failed" in e["event"]]
    assert failed == []
    assert not list(Path("runs/digits").glob("run.db-*"))  # the reader left nothing behind

    found = get(f"{url}api/runs/{quote(one['id'], safe='')}")
    front = json.loads(Path("runs/digits/front.json").read_text())["subnets"]
    for subnet, point in zip(front[1:], found["points"][1 : len(front)], strict=True):
        assert point["name"] == subnet["name"]
        done = launch(
            str(tmp_path / "lease"), *shlex.split(point["command"])[1:], "--json", script=short
        )
        out, error = done.communicate(timeout=300)
        assert done.returncode == 0, error
        written = json.loads(out)["subnet"]["architecture"]
        assert Architecture(written) == Architecture(subnet["architecture"])
        assert Path(f"{subnet['name']}.onnx").exists()
    page.send_signal(signal.SIGINT)
    page.communicate(timeout=30)
    assert page.returncode == 130
