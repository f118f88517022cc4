"""The run database: one SQLite file, opened safely and never deleted.

WAL with synchronous=FULL: what was acknowledged survives a SIGKILL and a power cut. The tables
of each room carry their own schema version, so that rooms can share the file.
"""

import math
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from latency.files import storage_error
from search_spaces.errors import UserError

APPLICATION_ID = 0x656E6173
"""PRAGMA application_id of our files ("enas"): tells them from another program's database."""

BUSY_TIMEOUT_S = 30.0
LEAST_FREE_BYTES = 1 << 16
"""Two pages of the shared memory beside a database."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, or create it; the folder must exist.

    Raises:
        UserError: The file is truncated, corrupt, another program's, unreadable or locked, or
            the disk is full. Nothing is ever deleted or overwritten.
    """
    if not path.parent.is_dir():
        raise UserError(f"cannot open the store {path}: the folder {path.parent} does not exist")
    fresh = not path.exists() or path.stat().st_size == 0
    connection: sqlite3.Connection | None = None
    try:
        with storage_errors(path):
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
            _check(connection, path, fresh)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path, fresh: bool) -> None:
    if not fresh:
        # First: a damaged file must not be written to
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise UserError(_damaged(path, verdict))
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found == APPLICATION_ID:
        return
    # A kill between creation and the first commit leaves an empty database: that one is ours
    if found != 0 or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise UserError(
            f"{path} is a SQLite database of another program; "
            "choose another output folder or move the file away"
        )
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")


def ensure_schema(
    connection: sqlite3.Connection,
    name: str,
    version: int,
    statements: Sequence[str],
    upgrades: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Create the tables of room `name` once and record their version, or bring older ones to it.

    Args:
        connection: The database.
        name: The room.
        version: Of its tables.
        statements: What creates them.
        upgrades: What makes tables of an older version those of the next one, by version.

    Raises:
        UserError: The tables were written by a newer version, or by one that is not readable.
    """
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schemas (name TEXT PRIMARY KEY, version INTEGER NOT NULL)"
        )
        row = connection.execute("SELECT version FROM schemas WHERE name = ?", (name,)).fetchone()
        if row is None:
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schemas VALUES (?, ?)", (name, version))
            return
        found = row[0]
        while found < version and found in (upgrades or {}):
            for statement in (upgrades or {})[found]:
                connection.execute(statement)
            found += 1
        if found == version:
            connection.execute("UPDATE schemas SET version = ? WHERE name = ?", (version, name))
        else:
            raise UserError(
                f"{database_path(connection)}: its {name} tables have schema {row[0]}, this "
                f"version reads {version}; upgrade elastic-nas or choose another output folder"
            )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything inside at once, or nothing.

    Raises:
        UserError: The disk is full, or another process keeps the database locked.
    """
    with storage_errors(database_path(connection)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a locked or a damaged file into one line that names `path`.

    Raises:
        UserError: In place of the sqlite3 or OS error.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _user_error(path, error) from error
    except OSError as error:
        raise storage_error(error, path) or error from error


@contextmanager
def damaged_rows(path: Path) -> Iterator[None]:
    """Turn a row that does not hold what was written into one line that names `path`.

    SQLite notices damaged pages, not a changed letter of a text.

    Raises:
        UserError: In place of the error of what reads the row.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(_damaged(path, f"a row of it is damaged: {error}")) from None


def database_path(connection: sqlite3.Connection) -> Path:
    """The file behind a connection."""
    return Path(connection.execute("PRAGMA database_list").fetchone()[2] or ":memory:")


def _user_error(path: Path, error: sqlite3.Error) -> Exception:
    message = str(error)
    # Where there is no room for the files beside it, SQLite speaks of input and output
    no_room = "disk I/O" in message and _free_bytes(path) < LEAST_FREE_BYTES
    if "disk is full" in message or no_room:
        return UserError(_full(path))
    if "disk I/O" in message:
        return UserError(
            f"cannot write {path}: {message}; check the disk, and run the same command again"
        )
    if "locked" in message:
        return UserError(
            f"{path} is in use by another process for over {BUSY_TIMEOUT_S:.0f} s; wait until it "
            "ends, and run the same command again"
        )
    if "unable to open" in message or "readonly" in message:
        return UserError(f"cannot open the store {path}: {message}; check the path and its rights")
    if any(words in message for words in ("not a database", "malformed", "no such")):
        return UserError(_damaged(path, message))
    return error


def _free_bytes(path: Path) -> float:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return math.inf


def _full(path: Path) -> str:
    return (
        f"no space left on the disk of {path}; free some and run the same command again: "
        "finished work is kept"
    )


def _damaged(path: Path, reason: str) -> str:
    lines = [line for line in reason.splitlines() if not line.startswith("***")]
    return (
        f"{path} is not a readable store ({(lines or [reason])[0]}); restore it from a copy, or "
        "move it away and run again to measure anew"
    )
