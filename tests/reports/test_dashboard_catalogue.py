"""What the dashboard finds in run directories: which runs, how far, which subnets and commands."""

import json
import os
import shlex
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from latency.database import connect
from nas.events import Events
from nas.lock import Lock
from nas.search.choice import best_within, parse_bounds
from nas.store import EvaluationStore
from reports.compare_page import comparison_json
from reports.comparison import compare
from reports.dashboard import Catalogue
from reports.dashboard.command import round_up
from reports.dashboard.discovery import find_runs
from reports.dashboard.files import open_served
from reports.dashboard.owner import is_at_work
from reports.dashboard.store import evaluations_per_s, measured_sessions
from search_spaces import Architecture
from search_spaces.errors import UserError
from tests.reports.fixture_run import (
    add_policies,
    build_lm_run,
    build_vit_run,
    read,
    tell_more,
    write,
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_vit_run(tmp_path / "runs" / "digits", evaluated=60, size=6)
    return tmp_path / "runs"


def listed(folder=Path("runs")):
    return {one["id"]: one for one in Catalogue([folder.absolute()]).runs()["runs"]}


def started(directory, command="run", device="cpu", minutes=0, **fields):
    Events(directory / "events.jsonl").write(
        "command_started", command=command, device=device, **fields
    )


def test_runs_are_found_at_any_depth_and_links_are_not_followed(runs, tmp_path):
    build_lm_run(runs / "more" / "text", evaluated=20, size=3)
    outside = build_vit_run(tmp_path / "outside", evaluated=20, size=3)
    (runs / "link").symlink_to(outside)
    build_vit_run(runs / "digits" / "exports" / "inside", evaluated=20, size=3)
    (runs / "config.yaml").write_text("a folder with a configuration is no run yet")
    assert list(find_runs(runs)) == [runs / "digits", runs / "more" / "text"]
    assert list(find_runs(outside)) == [outside]
    assert list(find_runs(tmp_path / "none")) == []
    assert set(listed()) == {"runs/digits@cpu", "runs/more/text@cpu"}


def test_a_finished_run_in_the_list(runs):
    one = listed()["runs/digits@cpu"]
    assert one["stage"] == "done"
    assert (one["name"], one["task"], one["mode"]) == ("digits", "image classification", "quick")
    assert one["front"] == len(read(runs / "digits", "front")["subnets"])
    assert one["evaluated"] == len(read(runs / "digits", "search")["evaluated"])
    assert 0 < one["hypervolume"] < 1
    assert abs(one["changed_s"] - time.time()) < 60


def test_each_device_is_listed_and_another_one_is_named_in_commands(runs):
    digits = runs / "digits"
    for stage in ("front", "search", "table"):
        found = read(digits, stage)
        (digits / f"{stage}.pi.json").write_text(
            json.dumps({**found, "device": {**found["device"], "name": "pi"}})
        )
    (digits / "devices.json").write_text('{"schema": 1, "first": "cpu"}')
    (digits / "config.yaml").write_text((digits / "config.yaml").read_text() + "device: cpu\n")
    catalogue = Catalogue([runs])
    assert set(listed()) == {"runs/digits@cpu", "runs/digits@pi"}
    own, other = (catalogue.run(f"runs/digits@{device}")["points"][0] for device in ("cpu", "pi"))
    assert "--device" not in own["command"]
    assert "--device pi" in other["command"]


def test_the_chooser_knows_every_axis_and_the_costs_of_what_was_only_evaluated(runs):
    tell_more(runs / "digits")
    for stage in ("search", "front"):
        found = read(runs / "digits", stage)
        write(runs / "digits", stage, {**found, "objectives": ["cross_entropy", "latency_ms"]})
    found = Catalogue([runs]).run("runs/digits@cpu")
    ids = [axis["id"] for axis in found["axes"]]
    assert ids == [
        *("cross_entropy", "latency_ms", "latency_energy_mj", "latency_peak_memory_bytes"),
        *("test_accuracy", "macs", "parameters", "size_bytes"),
    ]
    assert {axis["id"] for axis in found["axes"] if axis["higher"]} == {"test_accuracy"}
    assert found["quality"] == "cross_entropy"
    front = [point for point in found["points"] if point["kind"] == "front"]
    assert len(front) == len(read(runs / "digits", "front")["subnets"])
    predicted, measured, low, high = front[0]["values"]["latency_ms"]
    assert predicted != measured
    assert low < measured < high
    assert front[0]["values"]["latency_energy_mj"] == [None, 12.34, 12.2, 12.48]
    rest = [point for point in found["points"] if point["kind"] in ("evaluated", "spare")]
    search = read(runs / "digits", "search")
    assert len(front) + len(rest) == len(search["evaluated"])
    for point in rest:
        values = search["evaluated"][int(point["name"][1:])]["values"]
        assert point["values"]["latency_ms"] == [values[1], None]
        assert "test_accuracy" not in point["values"]
    # The same subnet costs the same, whether it was exported or only evaluated
    (runs / "digits" / "front.json").unlink()
    again = Catalogue([runs]).run("runs/digits@cpu")["points"]
    same = next(p for p in again if p["heads"] == front[0]["heads"] and p["ffn"] == front[0]["ffn"]
                and p["embed"] == front[0]["embed"])  # fmt: skip
    for name in ("macs", "parameters", "size_bytes"):
        assert same["values"][name][:2] == front[0]["values"][name][:2]


def test_what_a_subnet_looks_like(runs):
    add_policies(runs / "digits")
    found = Catalogue([runs]).run("runs/digits@cpu")
    point, genes = found["points"][0], read(runs / "digits", "front")["subnets"][0]["architecture"]
    assert len(point["heads"]) == len(point["ffn"]) == found["limits"]["layers"]
    for layer, (heads, ffn) in enumerate(zip(point["heads"], point["ffn"], strict=True)):
        assert heads == genes.get(f"heads.{layer}", 0)
        assert ffn == genes.get(f"ffn.{layer}", 0)
    assert len(point["policy"]) == 4 * sum(heads > 0 for heads in point["heads"])
    assert point["ends"] == "stem w8, head fp32"


@pytest.mark.parametrize("build", [build_vit_run, build_lm_run])
def test_each_command_gives_its_subnet_by_the_rule_of_export(tmp_path, monkeypatch, build):
    monkeypatch.chdir(tmp_path)
    directory = build(tmp_path / "a run", evaluated=80, size=12)
    search, front = read(directory, "search"), read(directory, "front")
    points = Catalogue([directory]).run("a run@cpu")["points"]
    commands = [point for point in points if point["kind"] in ("front", "spare")]
    assert len(commands) == len(search["front"])
    measured = {
        json.dumps(subnet["architecture"], sort_keys=True): {
            f"{name}_ms": one["measured_ms"]["median"] for name, one in subnet["workloads"].items()
        }
        for subnet in front["subnets"]
    }
    names, rows, quality = search["objectives"][1:], [], []
    for index in search["front"]:
        one = search["evaluated"][index]
        known = measured.get(json.dumps(one["architecture"], sort_keys=True), {})
        quality.append(one["values"][0])
        rows.append([known.get(n, v) for n, v in zip(names, one["values"][1:], strict=True)])
    for point in commands:
        words = shlex.split(point["command"])
        assert words[:4] == ["nas", "export", "a run", "--device"]
        bounds = parse_bounds(words[words.index("--best") + 1], names)
        place = best_within(as_array(rows), names, as_array(quality), bounds)
        genes = search["evaluated"][search["front"][place]]["architecture"]
        assert [genes.get(f"heads.{i}", 0) for i in range(len(point["heads"]))] == point["heads"]
        assert [genes.get(f"ffn.{i}", 0) for i in range(len(point["ffn"]))] == point["ffn"]
        assert genes["embed"] == point["embed"]


def as_array(values):
    import numpy as np

    return np.array(values, dtype=np.float64)


def test_a_search_that_is_not_done_has_no_commands(runs):
    digits = runs / "digits"
    found = read(digits, "search")
    (digits / "search.json").unlink()
    (digits / "front.json").unlink()
    write(digits, "search-unfinished", {**found, "finished": False})
    points = Catalogue([runs]).run("runs/digits@cpu")["points"]
    assert {point["command"] for point in points} == {None}
    assert listed()["runs/digits@cpu"]["front"] == len(found["front"])


def test_of_equal_qualities_a_command_has_the_subnet_that_export_takes(runs):
    """Export looks at what is bounded, and then at the order of the front."""
    digits = runs / "digits"
    (digits / "front.json").unlink()
    found = read(digits, "search")
    one, other = (found["evaluated"][index] for index in found["front"][:2])
    one["values"], other["values"] = [0.1, 1.0, 3.0, 4.0], [0.1, 1.0, 2.0, 5.0]
    names = ["error", "latency_ms", "macs", "size_bytes"]
    both = {"evaluated": [one, other], "front": [0, 1], "selected": [], "references": []}
    write(digits, "search", {**found, **both, "objectives": names})
    points = Catalogue([runs]).run("runs/digits@cpu")["points"]
    commands = [shlex.split(point["command"]) for point in points]
    for place, words in enumerate(commands):
        bounds = parse_bounds(words[words.index("--best") + 1], names)
        bounded = list(dict.fromkeys(bound.objective for bound in bounds))
        rows = [[p["values"][names.index(name)] for name in bounded] for p in (one, other)]
        assert best_within(as_array(rows), bounded, as_array([0.1, 0.1]), bounds) == place


def test_no_name_of_a_run_or_subnet_is_read_by_the_shell(tmp_path, monkeypatch):
    """Commands are there to be copied, and runs may come from anybody."""
    monkeypatch.chdir(tmp_path)
    directory = build_vit_run(tmp_path / "a <= $(touch x)", evaluated=60, size=3)
    front = read(directory, "front")
    for subnet in front["subnets"]:
        subnet["name"] = "s >= `touch x`"
    write(directory, "front", front)
    points = Catalogue([tmp_path]).run("a <= $(touch x)@cpu")["points"]
    commands = [point["command"] for point in points if point.get("command")]
    assert commands
    for command in commands:
        quoted = [part for part in command.split("'")[1::2] if "touch" in part]
        assert command.count("touch") == len(quoted) > 0
        assert shlex.split(command)[2] == "a <= $(touch x)"


def test_no_command_is_made_of_a_strange_objective(runs):
    digits = runs / "digits"
    for stage in ("search", "front"):
        found = read(digits, stage)
        write(digits, stage, {**found, "objectives": ["error", "$(touch x)_ms"]})
    points = Catalogue([runs]).run("runs/digits@cpu")["points"]
    assert {point.get("command") for point in points} == {None}


@pytest.mark.parametrize("value", [0.0314, 0.03135, 123456.0, 1e-9, 7.0, -0.03135, 99999.5])
@pytest.mark.parametrize("digits", [3, 5, 17])
def test_rounded_bounds_are_never_below(value, digits):
    rounded = round_up(value, digits)
    assert rounded >= value
    assert rounded - value <= abs(value) * 10.0 ** (1 - digits)


# --- stages ------------------------------------------------------------------------------------


def test_training_tells_progress_and_the_time_left(runs):
    digits = runs / "digits"
    for stage in ("front", "search", "table", "supernet"):
        (digits / f"{stage}.json").unlink()
    (digits / "config.yaml").write_text("name: digits\ntraining: {steps: 8000, policy_steps: 80}\n")
    started(digits)
    Events(digits / "events.jsonl").write("stage_started", stage="train")
    lock = Lock(digits / ".lock")
    try:
        one = listed()["runs/digits@cpu"]
    finally:
        lock.release()
    assert (one["stage"], one["note"]) == ("training", "step 4000 of 8080")
    assert one["progress"] == pytest.approx(4000 / 8080)
    written = (digits / "training.jsonl").stat().st_mtime
    assert one["ends_s"] == pytest.approx(written + 4080 / 22, abs=1)


def test_searching_tells_progress_and_the_time_left_by_the_store(runs):
    digits = runs / "digits"
    found = read(digits, "search")
    (digits / "search.json").unlink()
    (digits / "front.json").unlink()
    write(digits, "search-unfinished", {**found, "finished": False, "known": 12, "budget": 96})
    started(digits)
    Events(digits / "events.jsonl").write("stage_started", stage="search")
    done = len(found["evaluated"]) - 12
    lock = Lock(digits / ".lock")
    with closing(connect(digits / "run.db")) as connection:
        EvaluationStore(connection)
        now = time.time()
        for number in range(21):  # two a second, from now on
            connection.execute(
                "INSERT INTO evaluations (supernet, architecture, split, metrics, created) "
                "VALUES ('s', ?, 'validation', '{}', ?)",
                (str(number), now + number / 2),
            )
        connection.commit()
        try:
            one = listed()["runs/digits@cpu"]
        finally:
            lock.release()
    assert (one["stage"], one["note"]) == ("searching", f"{done} of 96 evaluations")
    assert one["progress"] == pytest.approx(done / 96)
    written = (digits / "search-unfinished.json").stat().st_mtime
    assert one["ends_s"] == pytest.approx(written + (96 - done) / 2, abs=1)


@pytest.mark.parametrize(
    ("events", "stage", "note"),
    [
        ([("command_started", {})], "interrupted", "nas run goes on where it stopped"),
        (
            [("command_started", {}), ("command_failed", {"error": "KeyboardInterrupt: "})],
            "interrupted",
            "nas run goes on where it stopped",
        ),
        (
            [("command_started", {}), ("command_failed", {"error": "UserError: disk full; free"})],
            "failed",
            "nas run: disk full; free",
        ),
        ([("command_started", {}), ("command_ended", {})], "done", ""),
    ],
)
def test_stages_of_runs_that_nobody_works_on(runs, events, stage, note):
    log = Events(runs / "digits" / "events.jsonl")
    for name, fields in events:
        log.write(name, command="run", device="cpu", **fields)
        # A report that somebody made meanwhile is no command that works on the run
        log.write("command_started", command="report", device="cpu")
    one = listed()["runs/digits@cpu"]
    assert (one["stage"], one["note"]) == (stage, note)


def test_a_run_that_has_just_begun_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "new"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("name: new\n")
    (directory / "devices.json").write_text('{"schema": 1, "first": "cpu-1t"}')
    started(directory, device="cpu-1t")
    lock = Lock(directory / ".lock")
    try:
        one = listed()["runs/new@cpu-1t"]
    finally:
        lock.release()
    assert one["stage"] == "training"
    assert not one["has_report"]
    assert Catalogue([directory]).run("runs/new@cpu-1t")["points"] == []


def test_who_works_on_a_run_is_seen_without_touching_the_lock(tmp_path):
    assert not is_at_work(tmp_path)
    lock = Lock(tmp_path / ".lock")
    assert is_at_work(tmp_path)
    lock.release()
    assert not is_at_work(tmp_path)  # alive, and no longer at work
    (tmp_path / ".lock").write_text('{"process": 4194305}')
    assert not is_at_work(tmp_path)
    for text in ("torn", '{"process": 1e400}', "[" * 200, "[]"):
        (tmp_path / ".lock").write_text(text)
        assert not is_at_work(tmp_path)
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")  # reading it would wait for ever
    assert not is_at_work(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to("/dev/zero")  # which never ends
    assert not is_at_work(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "events.jsonl", "training.jsonl"])
def test_a_file_nested_too_deep_hides_no_other_run(runs, name):
    build_vit_run(runs / "other", evaluated=20, size=3)
    (runs / "digits" / name).write_text("[" * 100_000)
    assert listed()["runs/other@cpu"]["stage"] == "done"
    assert "runs/digits@cpu" in listed() or "runs/digits@" in listed()


# --- the store ---------------------------------------------------------------------------------


def test_a_reader_of_the_store_neither_waits_nor_makes_its_writer_wait(tmp_path):
    since = datetime.now(UTC) - timedelta(hours=1)
    with closing(connect(tmp_path / "run.db")) as connection:
        store = EvaluationStore(connection)
        store.add("s", "validation", {Architecture({"a": 1}): {"error": 0.5}})
        connection.execute("BEGIN IMMEDIATE")  # as long as it lasts, no other writer gets in
        began = time.monotonic()
        assert evaluations_per_s(tmp_path, since.timestamp()) is None  # one batch has no speed
        assert time.monotonic() - began < 0.2
        connection.execute("COMMIT")
        time.sleep(0.01)
        store.add("s", "validation", {Architecture({"a": 2}): {"error": 0.5}})
        assert evaluations_per_s(tmp_path, since.timestamp()) > 0
        assert measured_sessions(tmp_path, since.isoformat()) is None  # no such table yet


def test_a_store_that_nobody_has_open_is_left_as_it_is(tmp_path):
    with closing(connect(tmp_path / "run.db")) as connection:
        EvaluationStore(connection)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert evaluations_per_s(tmp_path, 0) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["run.db"]


def test_a_store_that_is_none_is_no_error(tmp_path):
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"run.db{end}").write_text("not a database, but long enough to be read" * 100)
    assert evaluations_per_s(tmp_path, 0) is None
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "run.db").execute("SELECT 1 FROM evaluations")


# --- what is damaged ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("front.json", '{"schema": 1', "runs/bad/front.json: not JSON"),
        ("search.json", '{"schema": 9}', "schema 9 is not 1"),
        ("config.yaml", "a: [", "runs/bad/config.yaml: not YAML"),
        ("devices.json", "[]", "devices.json does not name the first device"),
    ],
)
def test_a_damaged_run_is_listed_and_takes_no_other_down(runs, file, text, reason):
    build_vit_run(runs / "bad", evaluated=20, size=3)
    (runs / "bad" / file).write_text(text)
    found = listed()
    assert found.pop("runs/digits@cpu")["stage"] == "done"
    (bad,) = found.values()
    assert bad["stage"] == "damaged"
    assert reason in bad["note"]
    assert "\n" not in bad["note"]
    with pytest.raises(UserError, match=reason):
        Catalogue([runs]).run(bad["id"])


def test_stage_files_that_are_links_or_pipes_are_not_read(runs, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password: [hunter2")
    for name in ("config.yaml", "front.json"):
        bad = build_vit_run(runs / name, evaluated=20, size=3)
        (bad / name).unlink()
    (runs / "config.yaml" / "config.yaml").symlink_to(secret)
    os.mkfifo(runs / "front.json" / "front.json")
    notes = {one["name"]: one["note"] for one in listed().values()}
    assert notes["config.yaml"].startswith("runs/config.yaml: config.yaml is no regular file")
    assert notes["front.json"].startswith("runs/front.json: front.json is no regular file")
    assert "hunter2" not in json.dumps(notes)


def test_a_run_that_is_changed_is_read_again_and_others_are_not(runs, monkeypatch):
    import reports.dashboard.catalogue as module

    read_again = []
    load = module.load_run
    monkeypatch.setattr(
        module, "load_run", lambda path, suffix: read_again.append(path.name) or load(path, suffix)
    )
    build_vit_run(runs / "other", evaluated=20, size=3)
    catalogue = Catalogue([runs])
    first = catalogue.runs()
    assert catalogue.runs() == first
    assert read_again == ["digits", "other"]
    write(runs / "other", "front", {**read(runs / "other", "front"), "subnets": []})
    versions = {one["id"]: one["version"] for one in first["runs"]}
    changed = [
        one["id"] for one in catalogue.runs()["runs"] if one["version"] != versions[one["id"]]
    ]
    assert changed == ["runs/other@cpu"]
    assert read_again == ["digits", "other", "other"]


def test_comparison_is_that_of_nas_compare(runs):
    build_vit_run(runs / "other", seed=1, evaluated=60, size=6)
    found = Catalogue([runs]).compare(["runs/digits@cpu", "runs/other@cpu"])
    expected = comparison_json(compare([Path("runs/digits"), Path("runs/other")]))
    assert [front.pop("id") for front in found["fronts"]] == ["runs/digits@cpu", "runs/other@cpu"]
    del found["schema"], found["corner_text"]
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(expected))
    with pytest.raises(UserError, match="name two runs"):
        Catalogue([runs]).compare(["runs/digits@cpu"])


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("run.db", ".lock", "events.jsonl", "supernet.safetensors", "report.html"),
        *("../secret.json", "exports/../../secret.json", "/etc/passwd", "exports/.hidden.onnx"),
        *("exports/s00.onnx\0.json", "exports//s00.onnx", "exports/a/b/s00.onnx", "exports", ""),
        *("exports/s00.onnx/", "exports\\s00.onnx", "front.json\n"),
    ],
)
def test_only_known_kinds_of_files_are_handed_out(tmp_path, name):
    with pytest.raises(UserError, match="no file that the dashboard hands out"):
        open_served(tmp_path, name)


def test_no_part_of_the_path_of_a_file_may_be_a_link(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / "exports").mkdir(parents=True)
    outside.mkdir()
    (outside / "s00.onnx").write_bytes(b"outside")
    (run / "exports" / "s00.onnx").write_bytes(b"inside")
    with open_served(run, "exports/s00.onnx") as file:
        assert file.read() == b"inside"
    (run / "exports" / "s01.onnx").symlink_to(outside / "s00.onnx")
    (run / "exports" / "cpu").symlink_to(outside)
    os.mkfifo(run / "exports" / "s02.onnx")
    (run / "exports" / "s03.onnx").mkdir()
    for name in ("s01.onnx", "cpu/s00.onnx", "s04.onnx"):
        with pytest.raises(UserError, match="cannot be opened"):
            open_served(run, f"exports/{name}")
    for name in ("s02.onnx", "s03.onnx"):
        with pytest.raises(UserError, match="is no regular file"):
            open_served(run, f"exports/{name}")
