"""The command line: exit codes, one-line errors, JSON, interruption, speed of the help.

The pipeline's stages are replaced throughout: what they do is tested where they are.
"""

import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import nas.cli
from nas.cli import main
from nas.cli.commands import COMMANDS
from nas.events import read_lines
from search_spaces.errors import InfeasibleError, UserError
from tests.reports.fixture_run import build_vit_run

YAML = """
output: runs/digits
task: {kind: image-classification, data: digits}
space: {embed: [32, 64], depth: [2, 4], heads: [1, 2], ffn: [32, 64]}
"""
STAGES = {
    "run": "run_all",
    "train": "train",
    "measure": "measure",
    "search": "search",
    "export": "export_front",
    "report": "report",
}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline whose stages answer with what they were called with."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(YAML)
    fake = types.ModuleType("nas.cli.pipeline")
    for stage in STAGES.values():
        setattr(fake, stage, lambda run, stage=stage: {"stage": stage, "device": run.device})
    fake.export_best = lambda run, bound, output: {"bound": bound, "output": str(output)}
    monkeypatch.setitem(sys.modules, "nas.cli.pipeline", fake)
    monkeypatch.setattr(nas.cli, "pipeline", fake, raising=False)
    return fake


def failing(error):
    def stage(run):
        raise error

    return stage


def events():
    return read_lines(Path("runs/digits/events.jsonl"))


def heed_interruptions():
    """In the background of a shell Ctrl-C is ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launch(arguments, stage, **keywords):
    """Start `nas` in a process of its own, with a pipeline of one stage."""
    script = textwrap.dedent(
        """
        import sys, types
        import nas.cli
        from nas.cli import main
        fake = types.ModuleType("nas.cli.pipeline")
        exec(sys.argv[1], fake.__dict__)
        sys.modules["nas.cli.pipeline"] = nas.cli.pipeline = fake
        sys.exit(main(sys.argv[2:]))
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", script, textwrap.dedent(stage), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **{"preexec_fn": heed_interruptions} | keywords,
    )


@pytest.mark.parametrize(("command", "stage"), STAGES.items())
def test_every_command_calls_its_stage(pipeline, capsys, command, stage):
    main(["train", "my.yaml"])
    capsys.readouterr()
    assert main([command, "my.yaml", "--device", "cpu-1t", "seed=0"]) == 0
    assert capsys.readouterr().out == f"stage: {stage}\ndevice: cpu-1t\n"
    assert [event["event"] for event in events()][-2:] == ["command_started", "command_ended"]
    assert events()[-1]["command"] == command


def test_overrides_may_follow_options(pipeline):
    assert main(["train", "my.yaml", "seed=3", "--device", "cpu-1t", "name=x"]) == 0
    assert events()[-2]["overrides"] == ["seed=3", "name=x"]


def test_a_run_directory_is_a_configuration(pipeline, capsys):
    assert main(["train", "my.yaml"]) == 0
    assert main(["run", "runs/digits", "search.budget=3"]) == 0
    assert "budget: 3" in Path("runs/digits/config.yaml").read_text()


def test_export_of_one_subnet(pipeline, capsys):
    assert main(["export", "my.yaml", "--best", "latency_ms <= 2"]) == 0
    assert capsys.readouterr().out == "bound: latency_ms <= 2\noutput: best.onnx\n"
    arguments = ["export", "my.yaml", "--best", "latency_ms <= 2", "--output", "a.onnx", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "command": "export",
        "exit_code": 0,
        "bound": "latency_ms <= 2",
        "output": "a.onnx",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output", "a.onnx"], "--output a.onnx belongs to --best; the front goes to"),
        (
            ["--best", "b", "--output", "a.pt"],
            "--output a.pt does not end with .onnx; write a.onnx",
        ),
        (["--best", "b", "--output", "no/a.onnx"], "--output no/a.onnx: there is no folder no;"),
    ],
)
def test_export_mistakes(pipeline, capsys, arguments, expected):
    assert main(["export", "my.yaml", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"nas export: {expected}")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [],
            "nas: give a command: run, train, measure, search, export, report, compare, dashb",
        ),
        (["rnu"], "nas: rnu is not a command; did you mean run? see nas --help\n"),
        (["--json"], "nas: --json is not a command; see nas --help\n"),
        (["run"], "nas run: the following arguments are required: CONFIG; see nas run --help\n"),
        (["run", "my.yaml", "--dev", "x"], "nas run: unrecognized arguments: --dev x; see "),
        (["doctor", "cpu", "cpu-1t"], "nas doctor: unrecognized arguments: cpu-1t; see "),
        (["run", "my.yaml", "--device"], "nas run: argument --device: expected one argument; "),
        (["run", "no.yaml"], "nas run: no.yaml does not exist; write one with: nas init digits "),
        (
            ["run", "my.yaml", "training.stepz=1"],
            "nas run: command line: training.stepz is not a known key; did you mean "
            "training.steps?\n",
        ),
        (["run", "my.yaml", "steps"], "nas run: steps is not an override; write KEY=VALUE, as "),
        (["run", "my.yaml", "--device", "gpu"], "nas run: device 'gpu' is not one of cpu, cpu-1t"),
        (["doctor", "gpu"], "nas doctor: device 'gpu' is not one of cpu, cpu-1t"),
        (["report", "my.yaml"], "nas report: runs/digits is not a run directory yet; start with"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(pipeline, capsys, arguments, expected):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(expected)
    assert printed.err.count("\n") == 1
    assert not Path("runs").exists()
    if arguments and arguments[0] in COMMANDS:
        assert main([*arguments, "--json"]) == 2
        document = json.loads(capsys.readouterr().out)
        assert document["exit_code"] == 2
        assert document["error"]


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (UserError("no photos in x; add some"), 2, "no photos in x; add some"),
        (
            InfeasibleError("latency_ms <= 0.1 is met by no subnet; the nearest has 0.3"),
            3,
            "latency_ms <= 0.1 is met by no subnet; the nearest has 0.3",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.onnx"),
            2,
            "cannot write x.onnx: no space left on device; nothing finished is lost: free some "
            "room and run the same command again",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x.onnx"),
            2,
            "cannot write x.onnx: permission denied; change its rights, or name another place with "
            "output=DIRECTORY",
        ),
        (
            sqlite3.OperationalError("database or disk is full"),
            2,
            "no space left on the disk; free some and run the same command again",
        ),
        (MemoryError(), 2, "out of memory; lower task.batch_size, or take smaller widths in space"),
    ],
)
def test_failures_of_a_stage(pipeline, capsys, error, code, expected):
    pipeline.run_all = failing(error)
    assert main(["run", "my.yaml"]) == code
    assert capsys.readouterr().err == f"nas run: {expected}\n"
    assert events()[-1]["event"] == "command_failed"
    assert "traceback" not in events()[-1]
    assert main(["run", "my.yaml", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    assert document["error"] == f"nas run: {expected}"


def test_a_bug_is_exit_code_1_and_kept(pipeline, capsys):
    pipeline.run_all = failing(KeyError("x"))
    assert main(["run", "my.yaml"]) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        "nas run: KeyError: 'x'; this is a bug, please report it with the traceback: it is kept "
        "in runs/digits/events.jsonl\n"
    )
    assert "in stage" in events()[-1]["traceback"]
    assert main(["run", "my.yaml", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_before_the_run_is_open(pipeline, capsys, monkeypatch):
    monkeypatch.setattr("nas.cli.stages.load_config", lambda *_: 1 / 0)
    assert main(["run", "my.yaml"]) == 1
    assert capsys.readouterr().err == (
        "nas run: ZeroDivisionError: division by zero; this is a bug, please report it with the "
        "traceback: --debug shows it\n"
    )


def test_failed_measurements_are_exit_code_4(pipeline, capsys):
    pipeline.run_all = lambda run: {"failed_measurements": 2}
    assert main(["run", "my.yaml"]) == 4
    assert capsys.readouterr().err.startswith("nas run: 2 measurements failed; the report says")
    assert main(["run", "my.yaml", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["failed_measurements"] == 2
    pipeline.run_all = lambda run: {"failed_measurements": 0}
    assert main(["run", "my.yaml"]) == 0


def test_json_is_the_only_thing_on_stdout(pipeline, capfd):
    def chatty(run):
        print("from Python")
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        run.console.print("progress")
        return {"front": [1, 2], "report": Path("report.html")}

    pipeline.run_all = chatty
    assert main(["run", "my.yaml", "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out) == {
        "schema": 1,
        "command": "run",
        "exit_code": 0,
        "front": [1, 2],
        "report": "report.html",
    }
    for part in ("from Python", "from C", "from a child", "progress"):
        assert part in printed.err


def test_a_second_command_on_the_same_run_is_refused(pipeline):
    first = launch(
        ["run", "my.yaml"],
        """
        import sys
        def run_all(run):
            print("working", flush=True)
            sys.stdin.readline()
            return {}
        """,
        stdin=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "working\n"
    second = launch(["train", "my.yaml"], "def train(run): return {}")
    _, error = second.communicate()
    assert second.returncode == 2
    assert error.startswith("nas train: runs/digits is in use by another nas command (process ")
    assert error.count("\n") == 1
    first.kill()
    first.communicate()
    third = launch(["train", "my.yaml"], "def train(run): return {}")
    _, error = third.communicate()
    assert (third.returncode, error) == (0, "")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruptions_are_exit_code_130(pipeline, sign):
    process = launch(
        ["run", "my.yaml"],
        """
        import time
        def run_all(run):
            try:
                print("working", flush=True)
                time.sleep(60)
            finally:
                print("in order", flush=True)
        """,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(sign)
    output, error = process.communicate()
    assert process.returncode == 130
    assert output == "in order\n"
    assert error == "nas run: interrupted; the same command goes on from here\n"
    assert events()[-1]["error"] == "KeyboardInterrupt: "


def test_a_full_disk_is_one_line(pipeline):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    process = launch(
        ["run", "my.yaml"],
        """
        from latency.files import write_bytes
        def run_all(run):
            write_bytes(run.directory.supernet, bytes(300_000))
        """,
        preexec_fn=limit,
    )
    _, error = process.communicate()
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "supernet.safetensors: file too large; nothing finished is lost" in error
    assert not Path("runs/digits/supernet.safetensors").exists()


def test_a_reader_that_goes_away_is_no_error(pipeline):
    process = launch(
        ["run", "my.yaml", "--json"],
        """
        import sys
        def run_all(run):
            sys.stdin.readline()
            return {"much": "x" * 1_000_000}
        """,
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate("go\n")
    assert (process.returncode, error) == (0, "")


def test_devices(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("devices").mkdir()
    Path("devices/desk.yaml").write_text(
        "affinity: [0]\nprepare: {cool_to_c: 60}\nworkloads: {four: {batch: 4}}\n"
    )
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    texts = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[::2]}
    reasons = dict(zip(texts, (line.strip() for line in lines[1::2]), strict=True))
    assert texts["cpu-1t"].startswith("onnxruntime, CPUExecutionProvider, 1 thread, offers fp32")
    assert reasons["cpu-1t"] == "reachable"
    assert texts["desk"].endswith(
        ", pinned to CPU 0, cooled to 60 degree C, workload four: batch 4"
    )
    assert texts["mac"].startswith("coreml, offers fp32 fp16, behind SSH on a host that is")
    assert "write `host: NAME` into devices/mac.yaml" in reasons["mac"]
    assert main(["devices", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["devices"]
    assert [device["name"] for device in listed[:2]] == ["cpu", "cpu-1t"]
    assert (listed[1]["reachable"], listed[1]["obstacle"]) == (True, None)
    assert "fp32" in listed[1]["precisions"]
    assert listed[-1]["workloads"] == {"four": {"batch": 4}}
    for device in listed:
        assert device["reachable"] == (device["obstacle"] is None)
    Path("devices/bad.yaml").write_text("thread: 1\n")
    assert main(["devices"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:-2:2]] == list(texts)
    assert out[-2].split(maxsplit=1) == ["bad", "cannot be used"]
    assert out[-1].strip().startswith("devices/bad.yaml: 'thread' is not one of name, backend")
    assert main(["devices", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["devices"] == listed
    assert document["broken"] == [{"name": "bad", "message": out[-1].strip()}]
    assert document["exit_code"] == 2
    assert main(["doctor", "bad"]) == 2
    assert capsys.readouterr().err.strip() == f"nas doctor: {out[-1].strip()}"


def test_compare(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("pi", "server")):
        build_vit_run(Path("runs") / name, seed=seed, evaluated=30, size=4)
    arguments = ["compare", "runs/pi", "runs/server"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "runs/pi on cpu" in printed.out
    assert printed.out.endswith("page: compare.html\n")
    assert printed.err == ""
    assert "elastic-nas comparison" in Path("compare.html").read_text()
    assert main([*arguments, "--json", "--output", "a.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["page"]) == (0, "a.html")
    assert [front["run"] for front in document["fronts"]] == [
        "runs/pi on cpu",
        "runs/server on cpu",
    ]
    for wrong, expected in (
        ([*arguments, "--output", "no/a.html"], "--output no/a.html: there is no folder no; make"),
        (arguments[:2], "runs/pi: one front only; name another run"),
        ([*arguments, "--output", "runs"], "--output runs is a folder; name a file, as runs/comp"),
        (arguments[:1], "the following arguments are required: RUN; see nas compare --help"),
    ):
        assert main(wrong) == 2
        assert capsys.readouterr().err.startswith(f"nas compare: {expected}")


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 2)])
def test_doctor(capsys, monkeypatch, ok, code):
    check = types.SimpleNamespace(name="disk", ok=ok, message="3 GiB free")
    monkeypatch.setattr("nas.cli.devices.examine", lambda profile: [check])
    assert main(["doctor"]) == code
    verdict = "ready" if ok else "not ready"
    shown = "ok  " if ok else "FAIL"
    assert capsys.readouterr().out == f"{shown}  disk: 3 GiB free\ndevice cpu is {verdict}\n"
    assert main(["doctor", "cpu-1t", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["checks"] == [{"name": "disk", "ok": ok, "message": "3 GiB free"}]


def test_help_shows_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in text
        assert command.summary in text
        assert command.summary.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_that_is_valid(capsys, name):
    import shlex

    from nas.cli.parser import parse

    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: nas {name} " in text
    assert "example:" in text
    assert "130  interrupted" in text
    for line in COMMANDS[name].example.splitlines():
        assert line in text
        words = shlex.split(line)
        assert words[:2] == ["nas", name]
        parse(words[1:])


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nas ")


HEAVY = ("torch", "ray", "pydantic", "rich", "numpy", "yaml", "onnxruntime", "sklearn", "pymoo")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["init", "--help"]])
def test_help_imports_next_to_nothing(arguments):
    script = (
        "import sys; from nas.cli import main; code = main(sys.argv[1:]); "
        f"heavy = [name for name in {HEAVY} if name in sys.modules]; "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_quick(arguments):
    """CPU time, which a busy machine does not change, of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "nas", *arguments],
        check=True,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.3
