import errno
import shutil
import sqlite3
from pathlib import Path

import pytest

from latency.database import APPLICATION_ID, connect, ensure_schema, storage_errors, transaction
from latency.store import LatencyStore
from search_spaces.errors import UserError


def test_settings_and_reopening(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    for _ in range(2):
        connection = connect(path)
        LatencyStore(connection)
        value = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "application_id", "busy_timeout")
        }
        assert value == {
            "journal_mode": "wal",
            "synchronous": 2,
            "application_id": APPLICATION_ID,
            "busy_timeout": 30000,
        }
        connection.close()


def test_the_with_statement_of_sqlite3_commits(tmp_path: Path) -> None:
    connection = connect(tmp_path / "run.db")
    with connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    connection = connect(tmp_path / "run.db")
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    connection.close()


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    path.touch()
    connect(path).close()


def filled(path: Path) -> bytes:
    connection = connect(path)
    LatencyStore(connection)
    with transaction(connection):
        connection.execute("CREATE TABLE big (x TEXT)")
        connection.executemany("INSERT INTO big VALUES (?)", [("y" * 1000,)] * 200)
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("keep", [50, 3000, 5000, 100_000])
def test_truncated_store(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "run.db"
    content = filled(path)
    path.write_bytes(content[:keep])
    with pytest.raises(
        UserError, match=r"run\.db is not a readable store .*move it away"
    ) as caught:
        connect(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content[:keep]


def test_foreign_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("dear diary " * 500)
    with pytest.raises(UserError, match=r"notes\.db is not a readable store"):
        connect(text)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    with pytest.raises(UserError, match=r"other\.db is a SQLite database of another program"):
        connect(other)


def test_newer_schema(tmp_path: Path) -> None:
    connection = connect(tmp_path / "run.db")
    LatencyStore(connection)
    with transaction(connection):
        connection.execute("UPDATE schemas SET version = 99 WHERE name = 'latency'")
    with pytest.raises(UserError, match=r"latency tables have schema 99.*upgrade"):
        LatencyStore(connection)
    connection.close()


def test_rooms_share_the_file(tmp_path: Path) -> None:
    connection = connect(tmp_path / "run.db")
    LatencyStore(connection)
    ensure_schema(connection, "quality", 7, ["CREATE TABLE quality_rows (x)"])
    LatencyStore(connection)
    names = connection.execute("SELECT name, version FROM schemas ORDER BY name").fetchall()
    assert names == [("latency", 2), ("quality", 7)]
    connection.close()


def test_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    connection = connect(tmp_path / "run.db")
    with transaction(connection):
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES ('kept')")
    connection.execute("PRAGMA max_page_count = 10")
    full = pytest.raises(UserError, match=r"no space left on the disk of .*run\.db; free some")
    with full, transaction(connection):
        connection.executemany("INSERT INTO t VALUES (?)", [("y" * 4000,)] * 50)
    assert connection.execute("SELECT x FROM t").fetchall() == [("kept",)]
    connection.close()
    with pytest.raises(UserError, match="no space left"), storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("free", "line"),
    [
        (0, "no space left on the disk of .*run.db; free some and run the same command again"),
        (1 << 30, "cannot write .*run.db: disk I/O error; check the disk, and run the same comm"),
    ],
)
def test_no_room_for_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, line: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=line), storage_errors(tmp_path / "run.db"):
        raise sqlite3.OperationalError("disk I/O error")


def test_missing_folder_and_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        connect(tmp_path / "nowhere" / "run.db")
    with pytest.raises(UserError, match="cannot open the store"):
        connect(tmp_path)


def test_tables_of_an_older_version_are_brought_to_this_one(tmp_path: Path) -> None:
    connection = connect(tmp_path / "run.db")
    ensure_schema(connection, "room", 1, ["CREATE TABLE room_rows (x)"])
    with transaction(connection):
        connection.execute("INSERT INTO room_rows VALUES (7)")
    upgrades = {
        1: ["ALTER TABLE room_rows ADD COLUMN y"],
        2: ["ALTER TABLE room_rows ADD COLUMN z DEFAULT 5"],
    }
    for _ in range(2):
        ensure_schema(connection, "room", 3, ["CREATE TABLE room_rows (x, y, z)"], upgrades)
        assert connection.execute("SELECT x, y, z FROM room_rows").fetchall() == [(7, None, 5)]
    with pytest.raises(UserError, match="its room tables have schema 3, this version reads 5"):
        ensure_schema(connection, "room", 5, [], {3: ["ALTER TABLE room_rows ADD COLUMN w"]})
    # Nothing of an upgrade that cannot be finished stays.
    columns = connection.execute("SELECT * FROM room_rows").description
    assert [column[0] for column in columns] == ["x", "y", "z"]
