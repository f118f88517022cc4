"""What only the store tells of a stage at work. Opened read-only, and let go of at once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

BUSY_S = 0.2
RECENT = 200
"""Evaluations that the speed of a search is taken from."""


@contextmanager
def _opened(directory: Path) -> Iterator[sqlite3.Connection | None]:
    """The store while a command has it open; None else.

    Only then are the files beside it there that a reader needs, and nothing has to be made. A
    reader of a database in WAL mode neither waits for its writer nor makes it wait.
    """
    path = directory / "run.db"
    beside = [path.with_name(f"run.db{end}") for end in ("", "-wal", "-shm")]
    if any(file.is_symlink() or not file.is_file() for file in beside):
        yield None
        return
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
        yield connection


def evaluations_per_s(directory: Path, since_s: float) -> float | None:
    """Speed of a search that began at `since_s` (seconds since 1970); None where nobody knows."""
    try:
        with _opened(directory) as connection:
            if connection is None:
                return None
            rows = connection.execute(
                "SELECT created FROM evaluations WHERE created >= ? AND split LIKE 'validation%' "
                f"ORDER BY id DESC LIMIT {RECENT}",
                (since_s,),
            ).fetchall()
    except sqlite3.Error:  # being made, damaged, or busy: it can wait
        return None
    # Those of a batch have one time: the speed is that from batch to batch.
    times = sorted(row[0] for row in rows)
    later = [time for time in times if time > times[0]]
    return len(later) / (times[-1] - times[0]) if later else None


def measured_sessions(directory: Path, since: str) -> int | None:
    """Measuring sessions that ended since a time in ISO form; None where nobody knows."""
    try:
        with _opened(directory) as connection:
            if connection is None:
                return None
            row = connection.execute(
                "SELECT count(*) FROM latency_sessions WHERE ended_at >= ?", (since,)
            ).fetchone()
    except sqlite3.Error:
        return None
    return int(row[0])
