"""A device's table outlives its device: shared as a file, used where the device is not at hand.

Real sessions of onnxruntime throughout; only the measuring protocol is shortened.
"""

import csv
import json
import re
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import latency.grid
import nas.stages.device_tables
from latency.database import connect
from latency.device_profile import DeviceProfile
from latency.energy import open_meter
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.table_store import TableIdentity, TableStore
from latency.timing import TimingConfig
from nas.cli import main
from nas.stages.device_tables import DeviceTables
from tests.nas.short_protocol import short_timing

pytestmark = pytest.mark.slow

YAML = """
name: digits
output: runs/digits
device: cpu-1t
task: {kind: image-classification, data: digits, batch_size: 32}
space:
  {patch_size: 4, head_dim: 4, embed: [8], depth: [1, 2], heads: [1, 2], ffn: [8, 12, 16, 24, 32]}
training: {steps: 6, warmup_steps: 2, threads: 1}
latency: {correction_subnets: 3}
search: {budget: 8, population: 4, front_size: 2}
"""


@pytest.fixture(scope="module", autouse=True)
def short_protocol(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimingConfig, "quick", classmethod(short_timing))
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("lease")))
        patch.setattr(latency.grid, "JOINED_BLOCKS", 2)  # a small space in several steps
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with a measured run, and its table as a file; nobody changes it."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "digits.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["measure", "digits.yaml"]) == 0
        assert main(["table", "export", "digits.yaml", "cpu.csv"]) == 0
    return folder


@pytest.fixture
def colleague(measured, tmp_path, monkeypatch):
    """Another folder, with the configuration and the file."""
    for name in ("digits.yaml", "cpu.csv"):
        shutil.copy(measured / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copied(measured, tmp_path, monkeypatch):
    shutil.copytree(measured, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def forbidden(*arguments, **keywords):
    raise AssertionError("measured")


@pytest.fixture
def no_sessions(monkeypatch):
    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", forbidden)


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def change_kernel(monkeypatch):
    now = OnnxRuntimeBackend.fingerprint
    monkeypatch.setattr(
        OnnxRuntimeBackend, "fingerprint", lambda self: {**now(self), "kernel": "9.9"}
    )


def test_rows_are_in_the_store_with_their_provenance(measured):
    table = load(measured / "runs/digits/table.json")
    with closing(connect(measured / "runs/digits/run.db")) as connection:
        store = TableStore(connection)
        ((identity, _),) = store.tables("cpu-1t")
        rows = store.rows(identity)
    assert identity.fingerprint == table["device"]["fingerprint"]
    assert identity.network["image_size"] == 8
    blocks = [row for row in rows if row.kind != "subnet"]
    assert {(row.kind, *row.widths.items()): row.latency_ms for row in blocks} == {
        (row["kind"], *row["widths"].items()): row["latency_ms"] for row in table["rows"]
    }
    whole = [row for row in rows if row.kind == "subnet"]
    assert [(row.widths, row.latency_ms) for row in whole] == [
        (row["architecture"], row["measured_ms"]) for row in table["whole"]
    ]
    for row in rows:
        sessions = row.provenance["sessions"]
        assert len(sessions) == row.sessions == 2
        for session in sessions:
            assert session["facts"]["onnxruntime"]
            assert {"session_id", "seed", "started_at", "timing", "protocol"} <= set(session)
        for model in row.provenance["models"]:
            assert len(model["sha256"]) == 64
            assert len(model["ratios"]) == 2
        # The row can be computed again from what it says of itself.
        if row.kind in ("attention", "ffn"):
            chain = sum(row.provenance["models"][0]["ratios"]) / 2
            cost = (chain - row.provenance["overhead_ratio"]) / row.provenance["copies"]
            mean_ms = cost * row.provenance["anchor_ns"] / 1e6
            assert max(mean_ms, 0.0) == pytest.approx(row.latency_ms)


def test_a_colleague_searches_for_a_device_that_is_not_there(colleague, no_sessions, capsys):
    # Of a provider that is not here: what is exported is to be run as it was measured there
    content = Path("cpu.csv").read_text(encoding="utf-8")
    there = content.replace("CPUExecutionProvider", "ROCMExecutionProvider")
    Path("cpu.csv").write_text(there, encoding="utf-8")
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "bench"]) == 0
    assert "next: nas run digits.yaml --device bench" in capsys.readouterr().out
    # The front cannot be measured, which the exit code and every file say.
    assert main(["run", "digits.yaml", "--device", "bench"]) == 4
    shown = capsys.readouterr().err
    assert "device bench is known from an imported table only" in shown
    assert "its stored quick table is used, and nothing is measured on it" in shown
    table, front = load("runs/digits/table.json"), load("runs/digits/front.json")
    assert table["at_hand"] is False
    assert table["corrections"]["latency"]["subnets"] == len(table["whole"]) == 3
    assert table["device"]["name"] == front["device"]["name"] == "bench"
    for subnet in front["subnets"]:
        assert subnet["measured_latency_ms"]["status"] == "lost"
        assert subnet["measured_latency_ms"]["median"] is None
        assert subnet["predicted_latency_ms"] > 0
        assert Path("runs/digits", subnet["export"]).is_file()
        beside = load(Path("runs/digits/exports", f"{subnet['name']}.json"))
        assert beside["runtime"]["provider"] == "ROCMExecutionProvider"
        assert "note" not in beside
    assert Path("runs/digits/report.html").is_file()


def test_the_colleague_gets_the_same_table(measured, colleague, no_sessions):
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "bench"]) == 0
    assert main(["measure", "digits.yaml", "--device", "bench"]) == 0
    here, there = load("runs/digits/table.json"), load(measured / "runs/digits/table.json")
    for key in ("rows", "corrections", "whole", "space", "workloads"):
        assert here[key] == there[key], key
    assert here["device"]["fingerprint"] == there["device"]["fingerprint"]
    # And passes it on as it was, but for the name.
    assert main(["table", "export", "digits.yaml", "bench.csv", "--device", "bench"]) == 0
    again = Path("bench.csv").read_bytes().replace(b"\n1,bench,", b"\n1,cpu-1t,")
    assert again == Path("cpu.csv").read_bytes()


def test_files_that_stand_in_for_those_of_the_device_say_so(colleague, no_sessions, capsys):
    """The table is of engines, which only the device can build: there are ONNX files instead."""
    with Path("cpu.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = {"precision": "fp16", "fp32_parts": "none", "tf32": "off", "cuda_graph": "on"}
    with Path("gpu.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            facts = {**json.loads(row["fingerprint"]), **told}
            writer.writerow(
                {
                    **row,
                    "backend": "tensorrt",
                    "precision": "fp16",
                    "fingerprint": json.dumps(facts),
                }
            )
    assert main(["table", "import", "digits.yaml", "gpu.csv", "--device", "jetson"]) == 0
    assert main(["run", "digits.yaml", "--device", "jetson"]) == 4
    note = (
        "device jetson is not at hand, so that its files are ONNX in fp32; its latencies are those "
        "of tensorrt in fp16: make its .engine of them where it is"
    )
    assert note in capsys.readouterr().err
    beside = load("runs/digits/exports/s00.json")
    assert (beside["model"], beside["note"]) == ("s00.onnx", note)
    assert beside["runtime"]["name"] == "tensorrt"
    assert beside["runtime"]["precision"] == "fp16"


def test_search_alone_takes_an_imported_table(colleague, no_sessions, capsys):
    assert main(["train", "digits.yaml"]) == 0
    assert main(["search", "digits.yaml", "--device", "bench"]) == 2
    assert "device 'bench' is not one of" in capsys.readouterr().err
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "bench"]) == 0
    assert main(["search", "digits.yaml", "--device", "bench"]) == 0
    assert load("runs/digits/search.json")["front"]
    # A quick table will not do for a standard run, and it says so
    capsys.readouterr()
    standard = ["measure", "digits.yaml", "--device", "bench", "latency.mode=standard"]
    assert main(standard) == 2
    assert (
        "its table of bench is of mode quick, not standard: measure it" in capsys.readouterr().err
    )


def test_rows_of_this_very_device_are_not_measured_again(colleague, monkeypatch, capsys):
    """The fingerprint is that of the file; only whole subnets, which chains share nothing with."""
    Path("devices").mkdir()
    Path("devices/desk.yaml").write_text("prepare: {governor: turbo}\n")
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "desk"]) == 0
    timed = []
    run_session = OnnxRuntimeBackend.run_session

    def spy(self, models, timing):
        timed.extend(models[1:])
        return run_session(self, models, timing)

    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", spy)
    assert main(["measure", "digits.yaml", "--device", "desk"]) == 0
    assert "governor turbo cannot be set on this host: it" in capsys.readouterr().err
    assert timed
    assert all("architecture" in model.provenance for model in timed)


def test_rows_of_standard_sessions_say_so(colleague, monkeypatch):
    """A quick request that stored standard sessions answer leaves no quick rows."""
    monkeypatch.setattr(
        TimingConfig,
        "standard",
        classmethod(lambda cls: replace(short_timing(cls), mode="standard")),
    )
    narrow = ["space.ffn=[8]", "space.heads=[1]", "latency.correction_subnets=1"]
    assert main(["measure", "digits.yaml", *narrow, "latency.mode=standard"]) == 0
    before = load("runs/digits/table.json")
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeBackend, "run_session", forbidden)
        assert main(["measure", "digits.yaml", *narrow]) == 0
    table = load("runs/digits/table.json")
    assert (before["mode"], table["mode"]) == ("standard", "quick")
    for name in ("rows", "whole"):
        assert {row["mode"] for row in table[name]} == {"standard"}
        assert table[name] == before[name]
    with closing(connect(Path("runs/digits/run.db"))) as connection:
        assert [one.mode for one, _ in TableStore(connection).tables("cpu-1t")] == ["standard"]
    # One more block is quick: both kinds are exported, imported and used together.
    wider = ["space.ffn=[8, 12]", *narrow[1:]]
    assert main(["measure", "digits.yaml", *wider]) == 0
    rows = load("runs/digits/table.json")["rows"]
    assert {row["mode"] for row in rows} == {"quick", "standard"}
    assert main(["table", "export", "digits.yaml", "both.csv"]) == 0
    assert main(["table", "import", "digits.yaml", "both.csv", "--device", "bench"]) == 0
    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", forbidden)
    assert main(["measure", "digits.yaml", *wider, "--device", "bench"]) == 0
    used = load("runs/digits/table.bench.json")["rows"]
    assert [(row["latency_ms"], row["mode"]) for row in used] == [
        (row["latency_ms"], row["mode"]) for row in rows
    ]


def test_a_device_that_changed_is_said(copied, monkeypatch, capsys):
    change_kernel(monkeypatch)
    assert main(["measure", "digits.yaml"]) == 0
    shown = capsys.readouterr().err
    (line,) = [line for line in shown.splitlines() if "is not as in its table" in line]
    assert re.search(r"device cpu-1t .*: kernel \S+ -> 9\.9; the 11 old rows are kept, but", line)
    with closing(connect(Path("runs/digits/run.db"))) as connection:
        store = TableStore(connection)
        new, old = [identity for identity, _ in store.tables("cpu-1t")]
        assert (new.fingerprint["kernel"], len(store.rows(new))) == ("9.9", 11)
        assert len(store.rows(old)) == 11
    # Once is enough.
    assert main(["measure", "digits.yaml"]) == 0
    assert "is not as in its table" not in capsys.readouterr().err


def test_an_imported_table_of_the_same_name_is_not_taken_for_this_device(
    colleague, monkeypatch, capsys
):
    assert main(["table", "import", "digits.yaml", "cpu.csv"]) == 0
    change_kernel(monkeypatch)
    assert main(["measure", "digits.yaml"]) == 0
    assert "import under another name (--device) to search for that device" in (
        capsys.readouterr().err
    )
    assert load("runs/digits/table.json")["device"]["fingerprint"]["kernel"] == "9.9"


def test_a_table_that_does_not_cover_the_space_is_told(colleague, capsys):
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "bench"]) == 0
    command = ["measure", "digits.yaml", "--device", "bench"]
    assert main([*command, "space.ffn=[8, 64]"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "the stored table of bench lacks 1 of 5 rows, such as ffn(embed=8, ffn=64)" in message
    # Widths between the measured ones are interpolated.
    assert main([*command, "space.ffn=[8, 28, 32]"]) == 0
    rows = load("runs/digits/table.json")["rows"]
    assert [r["widths"]["ffn"] for r in rows if r["status"] == "interpolated"] == [28]


def test_a_bad_file_changes_nothing(colleague, capsys):
    text = Path("cpu.csv").read_text().replace("latency_ms", "latency_us", 1)
    Path("bad.csv").write_text(text)
    assert main(["table", "import", "digits.yaml", "bad.csv"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nas table: bad.csv lacks the column latency_ms; ")
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("column", "name", "value", "what"),
    [
        ("fingerprint", "kernel", "9.9", r"kernel \S+ -> 9\.9"),
        ("network", "head_dim", 8, "its network is another"),
    ],
)
def test_a_file_of_two_tables_is_refused(colleague, capsys, column, name, value, what):
    with Path("cpu.csv").open(encoding="utf-8", newline="") as file:
        names, *rows = list(csv.reader(file))
    place = names.index(column)
    rows[3][place] = json.dumps({**json.loads(rows[3][place]), name: value})
    with Path("two.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    for device in ([], ["--device", "bench"]):
        assert main(["table", "import", "digits.yaml", "two.csv", *device]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            rf"nas table: two\.csv, line 5 is of another table than line 2 \({what}\); split the "
            r"file, .* \(--device\); nothing is imported",
            line,
        )
    assert not Path("runs").exists()


def test_memory_and_energy_are_objectives_where_the_device_tells(colleague, capsys):
    objectives = "search.objectives=[error, latency_ms, latency_peak_memory_bytes]"
    assert main(["run", "digits.yaml", objectives]) == 0
    table, front = load("runs/digits/table.json"), load("runs/digits/front.json")
    rows = {(row["kind"], *row["widths"].values()): row for row in table["rows"]}
    for subnet in front["subnets"]:
        predicted = subnet["values"][front["objectives"].index("latency_peak_memory_bytes")]
        assert predicted > 0
        # What was measured of the exported file; the table has it to within a factor, so small
        # a network is. A process that holds nothing is measured in megabytes.
        assert 1e4 < subnet["workloads"]["latency"]["peak_memory_bytes"] < 1e8
    assert all(row["peak_memory_bytes"] is not None for row in rows.values())
    for row in rows.values():
        low, high = row["peak_memory_bytes_interval"]
        assert low <= row["peak_memory_bytes"] <= high
    if open_meter(gpu=False)[0] is None:
        assert all(row["energy_mj"] is None for row in rows.values())
        assert main(["run", "digits.yaml", "search.objectives=[error, latency_energy_mj]"]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert (
            "does not tell latency_energy_mj of 8 of 8 blocks; take it out of search.obj" in message
        )
    else:
        assert all(row["energy_mj"] > 0 for row in rows.values())


def test_mistakes_are_told(copied, capsys):
    for words, message in (
        (["export", "digits.yaml", "x.txt"], "x.txt ends in neither .csv nor .parquet"),
        (["export", "digits.yaml", "no/x.csv"], "there is no folder no"),
        (["export", "digits.yaml", "x.csv", "--device", "cpu"], "has no table of cpu, there are"),
        (["import", "digits.yaml", "x.csv"], "x.csv does not exist"),
        (["import", "digits.yaml", "cpu.csv", "--device", "a b"], "--device a b: use letters"),
    ):
        assert main(["table", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_grid_is_interpolated_and_its_error_said(colleague, monkeypatch, capsys):
    monkeypatch.setattr(latency.grid, "HELD_OUT", 2)
    assert main(["measure", "digits.yaml", "latency.grid=2", "--json"]) == 0
    done = capsys.readouterr()
    # Of five widths, the ends are measured, and two between them to judge the other one on.
    assert json.loads(done.out)["interpolated_rows"] == 1
    table = load("runs/digits/table.json")
    (error,) = table["interpolation"]
    assert (error["kind"], error["held_out"], error["interpolated"]) == ("ffn", 2, 1)
    assert f"{100 * error['mape']:.1f} % off on average" in done.err
    (row,) = [row for row in table["rows"] if row["status"] == "interpolated"]
    assert row["std_ms"] == pytest.approx(error["std"] * row["latency_ms"])


def test_an_interrupted_table_is_usable(colleague, monkeypatch):
    """After the corners, the rest is interpolated; the same command goes on."""
    sessions = 0
    run_session = OnnxRuntimeBackend.run_session

    def interrupt(self, models, timing):
        nonlocal sessions
        sessions += 1
        if sessions == 3:  # the corners take two
            raise KeyboardInterrupt
        return run_session(self, models, timing)

    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", interrupt)
    assert main(["measure", "digits.yaml"]) == 130
    statuses = [row["status"] for row in load("runs/digits/table.json")["rows"]]
    assert len(statuses) == 8
    assert 0 < statuses.count("interpolated") < 8
    assert main(["train", "digits.yaml"]) == 0
    assert main(["search", "digits.yaml"]) == 0
    # A budget that is spent allows for the corners, which are there.
    assert main(["measure", "digits.yaml", "latency.budget_minutes=1e-6"]) == 0
    assert [row["status"] for row in load("runs/digits/table.json")["rows"]] == statuses
    assert main(["measure", "digits.yaml"]) == 0
    table = load("runs/digits/table.json")
    assert "interpolated" not in [row["status"] for row in table["rows"]]
    assert table["interpolation"] == []


def test_a_mistake_in_a_profile_is_no_absence(colleague, no_sessions, capsys):
    """Else the stored table of a device would stand in for one that was only misspelt."""
    assert main(["table", "import", "digits.yaml", "cpu.csv", "--device", "mine"]) == 0
    Path("devices").mkdir()
    Path("devices/mine.yaml").write_text("options: {use_arena: true}\n")
    assert main(["measure", "digits.yaml", "--device", "mine"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "nas measure: device mine: option 'use_arena' of CPUExecutionProvider: it takes none, "
        "and ignores others; remove it"
    )


@pytest.mark.parametrize(("told", "fits"), [("on", True), ("off", False), (None, True)])
def test_a_table_of_threads_that_wait_otherwise_does_not_stand_in(monkeypatch, told, fits):
    """The file beside an export says how its threads wait, by the profile."""
    profile = DeviceProfile(name="pi", threads=4)
    monkeypatch.setattr(nas.stages.device_tables, "find_profile", lambda name: profile)
    identity = TableIdentity(
        device="pi",
        backend="onnxruntime",
        precision="fp32",
        threads=4,
        mode="quick",
        protocol=1,
        fingerprint={} if told is None else {"spinning": told},
        network={},
    )
    here = SimpleNamespace(lab=SimpleNamespace(profile=profile))
    assert DeviceTables._fits(here, identity) == fits
