"""What a run directory holds that is finished, seen from outside."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a run directory holds that is finished."""

    sessions: dict[str, tuple[Any, ...]]
    """Every column of a session by its id, and how many samples it has."""
    chain_sessions: frozenset[str]
    """Those among them that timed a block of the table."""
    evaluations: list[tuple[tuple[str, str, str], tuple[Any, ...]]]
    """(supernet, split, architecture), and (id, metrics, time of its computation)."""
    files: frozenset[str]
    supernet: str | None
    """Hash of the trained supernet."""
    weights_ns: int | None
    """When the weights were written."""

    @property
    def stage(self) -> str:
        """The stage that was at work, by the files that were there."""
        for file, stage in (
            ("config.yaml", "starting"),
            ("supernet.json", "training"),
            ("table.json", "measuring"),
            ("search.json", "searching"),
            ("front.json", "exporting"),
            ("report.html", "reporting"),
        ):
            if file not in self.files:
                return stage
        return "ending"


def snapshot(directory: Path) -> Snapshot:
    """Look at a run directory without touching it."""
    files = frozenset(path.name for path in directory.glob("*"))
    sessions: dict[str, tuple[Any, ...]] = {}
    chain_sessions: set[str] = set()
    evaluations: list[tuple[tuple[str, str, str], tuple[Any, ...]]] = []
    with copied_database(directory) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "latency_sessions" in tables:
            samples = dict(
                connection.execute("SELECT number, count(*) FROM latency_samples GROUP BY number")
            )
            for row in connection.execute("SELECT session_id, * FROM latency_sessions"):
                sessions[row[0]] = (*row[1:], samples.get(row[1], 0))
            for session_id, provenance in connection.execute(
                "SELECT session_id, provenance FROM latency_samples JOIN latency_sessions"
                " USING (number)"
            ):
                if "copies" in json.loads(provenance):
                    chain_sessions.add(session_id)
        if "evaluations" in tables:
            evaluations = [
                ((supernet, split, architecture), tuple(rest))
                for supernet, split, architecture, *rest in connection.execute(
                    "SELECT supernet, split, architecture, id, metrics, created FROM evaluations"
                )
            ]
    record = directory / "supernet.json"
    weights = directory / "supernet.safetensors"
    return Snapshot(
        sessions=sessions,
        chain_sessions=frozenset(chain_sessions),
        evaluations=evaluations,
        files=files,
        supernet=json.loads(record.read_text())["hash"] if record.exists() else None,
        weights_ns=weights.stat().st_mtime_ns if record.exists() else None,
    )


@contextmanager
def copied_database(directory: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the database, with its log: opening the original would tidy it up."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("run.db", "run.db-wal"):
            if (directory / name).exists():
                shutil.copy(directory / name, folder)
        with closing(sqlite3.connect(Path(folder) / "run.db")) as connection:
            yield connection
