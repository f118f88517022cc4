"""The evaluation store, and the files that must be whole or not there."""

import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from latency.database import connect
from latency.files import replacing, write_bytes
from nas.atomic import read_json, remove_leftovers, write_json, write_text
from nas.events import Events, read_lines
from nas.store import EvaluationStore
from search_spaces import SearchSpace
from search_spaces.errors import UserError

SPACE = SearchSpace({"a": (1, 2, 3), "b": (1, 2, 3)})


@pytest.fixture
def connection(tmp_path):
    connection = connect(tmp_path / "run.db")
    yield connection
    connection.close()


@pytest.fixture
def store(connection):
    return EvaluationStore(connection)


def architectures(count):
    return [SPACE.decode(np.array([i // 3, i % 3])) for i in range(count)]


def test_what_was_added_is_found_again(store, tmp_path):
    one, two, three = architectures(3)
    assert store.get("h", one, "validation") is None
    added = store.add("h", "validation", {one: {"error": 0.25}, two: {"error": np.float32(0.5)}})
    assert added == 2
    assert store.get("h", one, "validation") == {"error": 0.25}
    assert store.get("h", three, "validation") is None
    connection = connect(tmp_path / "run.db")
    again = EvaluationStore(connection)
    assert again.all("h", "validation") == {one: {"error": 0.25}, two: {"error": 0.5}}
    connection.close()


def test_rows_belong_to_one_supernet_and_split(store):
    (one,) = architectures(1)
    store.add("h", "validation", {one: {"error": 0.1}})
    store.add("h", "test", {one: {"error": 0.2}})
    store.add("other", "validation", {one: {"error": 0.3}})
    assert store.all("h", "validation") == {one: {"error": 0.1}}
    assert store.all("h", "test") == {one: {"error": 0.2}}
    assert store.all("other", "validation") == {one: {"error": 0.3}}
    assert store.count() == 3


def test_the_first_evaluation_stays(store):
    one, two = architectures(2)
    store.add("h", "validation", {one: {"error": 0.1}})
    assert store.add("h", "validation", {one: {"error": 0.9}, two: {"error": 0.2}}) == 1
    assert store.all("h", "validation") == {one: {"error": 0.1}, two: {"error": 0.2}}


def test_rows_come_in_the_order_in_which_they_were_added(store):
    ordered = architectures(9)[::-1]
    for architecture in ordered:
        store.add("h", "validation", {architecture: {"error": 0.1}})
    assert list(store.all("h", "validation")) == ordered
    rows = store.rows()
    assert [row.architecture for row in rows] == ordered
    assert sorted(row.created_s for row in rows) == [row.created_s for row in rows]


def test_a_metric_that_is_not_finite_adds_nothing(store):
    one, two = architectures(2)
    with pytest.raises(UserError, match=r"error of architecture .* is nan on the validation split"):
        store.add("h", "validation", {one: {"error": 0.1}, two: {"error": float("nan")}})
    assert store.count() == 0


def test_an_interrupted_transaction_adds_nothing(store, monkeypatch):
    with pytest.raises(AttributeError):
        store.add("h", "validation", {architectures(1)[0]: {"error": 0.1}, "no": {"error": 1}})
    assert store.count() == 0


def test_a_truncated_store_is_named_and_kept(store, connection, tmp_path):
    store.add("h", "validation", {a: {"error": 0.1} for a in architectures(9)})
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path = tmp_path / "run.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"run\.db is not a readable store") as caught:
        connect(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize("text", ["x", "[1]", "{", ""])
def test_a_damaged_row_is_told(store, connection, text):
    store.add("h", "validation", {a: {"error": 0.1} for a in architectures(2)})
    connection.execute("UPDATE evaluations SET metrics = ? WHERE id = 2", (text,))
    first, second = architectures(2)
    assert store.get("h", first, "validation") == {"error": 0.1}
    end = r"run\.db is not a readable store \(a row of it is damaged: .*\); restore it from a copy"
    with pytest.raises(UserError, match=end):
        store.get("h", second, "validation")
    if text != "[1]":
        with pytest.raises(UserError, match=end):
            store.all("h", "validation")


def test_a_store_without_its_table_is_told(store, connection):
    connection.execute("DROP TABLE evaluations")
    with pytest.raises(UserError, match=r"not a readable store \(no such table: evaluations\); re"):
        store.count()


def test_rows_survive_a_kill(tmp_path):
    """What `add` has acknowledged is there after SIGKILL."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from latency.database import connect
        from nas.store import EvaluationStore
        from search_spaces import SearchSpace
        space = SearchSpace({"a": tuple(range(100))})
        store = EvaluationStore(connect(Path(sys.argv[1])))
        for i in range(100):
            store.add("h", "validation", {space.decode(np.array([i])): {"error": i / 100}})
            if i == 20:
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    path = tmp_path / "run.db"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    connection = connect(path)
    assert EvaluationStore(connection).count() == 21
    connection.close()


def test_atomic_writes(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "one\r\ntwo ü")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "one\r\ntwo ü".encode()
    write_json(tmp_path / "a.json", {"n": np.int64(3), "x": np.array([1.5]), "s": "ü"})
    assert read_json(tmp_path / "a.json") == {"n": 3, "x": [1.5], "s": "ü"}
    write_bytes(tmp_path / "a.json", b"{}")
    assert read_json(tmp_path / "a.json") == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "deep"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"new": float("inf")})
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_one_line(tmp_path, monkeypatch, code):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: .*; ") as caught:
        write_json(path, {"new": 1})
    assert "\n" not in str(caught.value)
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_is_really_full(tmp_path):
    """The kernel itself refuses to write past RLIMIT_FSIZE."""
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from latency.files import write_bytes
        from search_spaces.errors import UserError
        path = Path(sys.argv[1])
        write_bytes(path, b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_bytes(path, b"x" * 10000)
        except UserError as error:
            print(error)
        """
    )
    path = tmp_path / "a.bin"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert "a.bin: file too large; nothing finished is lost" in done.stdout
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass  # nobody has written the file


def test_what_is_in_the_way_is_told(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    end = "; move away what is there, or name another place with output=DIRECTORY$"
    for path, reason in (
        ("folder", "folder: is a directory"),
        ("file/a", "file/a: (file exists|not a directory)"),
        ("link/a", "link/a: file exists"),
    ):
        with pytest.raises(UserError, match=f"^cannot use .*{reason}{end}"):
            write_text(tmp_path / path, "no")
    with pytest.raises(UserError, match=r"file name too long; give a shorter one$"):
        write_text(tmp_path / ("x" * 300), "no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "none" / "x")
    for name, reason in (("folder", "is a directory"), ("gone.jsonl", "a link that leads nowhere")):
        with pytest.raises(UserError, match=f"^cannot use .*{name}: {reason}{end}"):
            Events(tmp_path / name).write("started")


def test_leftovers_of_the_dead_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".a.json.{dead.pid}.tmp").write_text("half")
    (tmp_path / f".b.json.{os.getpid()}.tmp").write_text("being written")
    (tmp_path / ".c.tmp").write_text("not ours")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".b.json.{os.getpid()}.tmp",
        ".c.tmp",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1', "is not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b"\xff\xfe", "is not valid JSON"),
        (b'{"a": NaN}', r"is not valid JSON \(NaN is no number\)"),
        (b'{"a": -Infinity}', r"is not valid JSON \(-Infinity is no number\)"),
        (b'{"a": ' + 10**4 * b"[" + b"1}", "is not valid JSON"),
        (None, "does not exist; run the stage that writes it"),
    ],
)
def test_files_that_hold_no_json(tmp_path, content, expected):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_events_survive_a_torn_line(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    assert events.read() == []
    events.write("started", stage="train", path=Path("x"))
    with events.path.open("a") as file:
        file.write('{"event": "to')
    events.write("ended")
    assert [event["event"] for event in events.read()] == ["started", "ended"]
    assert events.read()[0]["stage"] == "train"
    with events.path.open("a") as file:
        file.write('{"event": "to')
    assert len(read_lines(events.path)) == 2


def test_events_on_a_full_disk(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="no space left on device"):
        Events(tmp_path / "events.jsonl").write("started")


def test_metrics_are_plain_json(store, connection):
    store.add("h", "validation", {architectures(1)[0]: {"error": np.float64(0.1), "n": 7}})
    (text,) = connection.execute("SELECT metrics FROM evaluations").fetchone()
    assert json.loads(text) == {"error": 0.1, "n": 7.0}
