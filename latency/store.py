"""The measurements in the run database: sessions, samples, devices and their baselines."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from latency.artifact import Artifact
from latency.backend import Block, Samples
from latency.calm import SAME_STATE
from latency.database import database_path, ensure_schema, storage_errors, transaction

SCHEMA_VERSION = 2

BASELINE_SESSIONS = 10
"""Sessions, the first of a device in its calm state, whose anchors make the baseline."""
FASTER_SESSIONS = 0.25
"""Share of sessions that may be faster than the device in its calm state."""
SLOW_IN_A_ROW = 2
"""More sessions in a row on a busy device than this are counted as so many."""

# latency_devices: a row per fingerprint. latency_sessions: a row per process that was started.
# latency_samples: what it says of each of its models, or why it says nothing.
_SCHEMA = (
    """CREATE TABLE latency_devices (
        fingerprint TEXT PRIMARY KEY, facts TEXT NOT NULL,
        protocol INTEGER, baseline_ns REAL, baseline_sessions INTEGER)""",
    """CREATE TABLE latency_sessions (
        number INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE,
        fingerprint TEXT NOT NULL REFERENCES latency_devices, protocol INTEGER NOT NULL,
        mode TEXT NOT NULL, outcome TEXT NOT NULL, hot INTEGER NOT NULL, seed INTEGER NOT NULL,
        started_at TEXT NOT NULL, ended_at TEXT NOT NULL, timing TEXT NOT NULL,
        anchor_ns REAL, drift REAL, facts TEXT NOT NULL, message TEXT NOT NULL)""",
    "CREATE INDEX latency_sessions_device ON latency_sessions (fingerprint, protocol, mode)",
    """CREATE TABLE latency_samples (
        number INTEGER NOT NULL REFERENCES latency_sessions,
        sha256 TEXT NOT NULL, signature TEXT NOT NULL, status TEXT NOT NULL, ratio REAL,
        max_abs_difference REAL, blocks TEXT NOT NULL, provenance TEXT NOT NULL,
        message TEXT NOT NULL, energy_mj REAL, peak_memory_bytes REAL,
        PRIMARY KEY (number, sha256, signature))""",
)
_UPGRADES = {
    1: (
        "ALTER TABLE latency_samples ADD COLUMN energy_mj REAL",
        "ALTER TABLE latency_samples ADD COLUMN peak_memory_bytes REAL",
    )
}


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What a session says of one model."""

    artifact: Artifact
    status: str
    """`ok`, `rejected`, `timeout`, `lost`; `cut` if another model ended the session."""
    ratio: float | None = None
    """Candidate over anchor in this session."""
    samples: Samples | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """One session as it is stored, in one transaction."""

    session_id: str
    outcome: str
    """`accepted`, `drift`, `hot` (both discarded), `rejected`, `timeout` or `lost`."""
    hot: bool = False
    """The anchor was slower than the sentinel allows."""
    seed: int
    started_at: str
    ended_at: str
    """ISO 8601, UTC."""
    timing: Mapping[str, object]
    anchor_ns: float | None = None
    """Median over rounds of the anchor's block latency."""
    drift: float | None = None
    """Anchor after over anchor before, minus 1."""
    facts: Mapping[str, object] = field(default_factory=dict)
    models: Sequence[ModelRecord]
    """The anchor first."""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """One model in one stored session, without its raw samples."""

    session_id: str
    outcome: str
    hot: bool
    status: str
    ratio: float | None
    message: str
    energy_mj: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The anchor's own latency on a device: what ratios are multiplied with."""

    anchor_ns: float
    sessions: int
    """Accepted sessions that it was taken from; 0 where there were discarded ones only."""


class LatencyStore:
    """Reads and writes the `latency_*` tables of a connection from `latency.database.connect`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Create the tables where they are missing.

        Raises:
            UserError: The tables are of another version.
        """
        ensure_schema(connection, "latency", SCHEMA_VERSION, _SCHEMA, _UPGRADES)
        self._connection = connection

    def add_device(self, fingerprint: Mapping[str, str]) -> str:
        """Store a fingerprint if it is new; returns its digest, 16 hex digits."""
        facts = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        with transaction(self._connection):
            self._connection.execute(
                "INSERT OR IGNORE INTO latency_devices (fingerprint, facts) VALUES (?, ?)",
                (digest, facts),
            )
        return digest

    def add_session(self, device: str, protocol: int, mode: str, session: SessionRecord) -> None:
        """Store a session with all its samples, or nothing of it.

        Raises:
            UserError: The disk is full or the file locked.
        """
        with transaction(self._connection):
            number = self._connection.execute(
                "INSERT INTO latency_sessions (session_id, fingerprint, protocol, mode, outcome,"
                " hot, seed, started_at, ended_at, timing, anchor_ns, drift, facts, message)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session.session_id,
                    device,
                    protocol,
                    mode,
                    session.outcome,
                    int(session.hot),
                    session.seed,
                    session.started_at,
                    session.ended_at,
                    _json(session.timing),
                    session.anchor_ns,
                    session.drift,
                    _json(session.facts),
                    session.message,
                ),
            ).lastrowid
            self._connection.executemany(
                "INSERT INTO latency_samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(number, *_sample_row(model)) for model in session.models],
            )

    def count_sessions(self, device: str) -> int:
        """Sessions of a device in any mode, those aside that were lost.

        A lost session is repeated as it was (the number seeds what it measures): a remote device
        may have finished it meanwhile, and then gives its result.
        """
        query = "SELECT count(*) FROM latency_sessions WHERE fingerprint = ? AND outcome != 'lost'"
        return int(self._rows(query, device)[0][0])

    def history(
        self, device: str, protocol: int, mode: str
    ) -> dict[tuple[str, str], list[History]]:
        """Every stored session of every model, by (SHA-256, signature), oldest first."""
        rows = self._rows(
            "SELECT m.sha256, m.signature, s.session_id, s.outcome, s.hot, m.status, m.ratio,"
            " m.message, m.energy_mj, m.peak_memory_bytes FROM latency_sessions s"
            " JOIN latency_samples m USING (number)"
            " WHERE s.fingerprint = ? AND s.protocol = ? AND s.mode = ? ORDER BY s.number",
            device,
            protocol,
            mode,
        )
        result: dict[tuple[str, str], list[History]] = {}
        for sha256, signature, session_id, outcome, hot, status, ratio, message, *rest in rows:
            energy_mj, peak_memory_bytes = rest
            result.setdefault((sha256, signature), []).append(
                History(
                    session_id=session_id,
                    outcome=outcome,
                    hot=bool(hot),
                    status=status,
                    ratio=ratio,
                    message=message,
                    energy_mj=energy_mj,
                    peak_memory_bytes=peak_memory_bytes,
                )
            )
        return result

    def last_timed(self, device: str, key: tuple[str, str]) -> tuple[dict[str, Any], int] | None:
        """Facts of the last session that timed a model, and the model's place in it (anchor: 0).

        Args:
            device: Digest of a fingerprint.
            key: `Artifact.key` of the model.
        """
        rows = self._rows(
            "SELECT s.facts, (SELECT count(*) FROM latency_samples o"
            " WHERE o.number = m.number AND o.rowid < m.rowid)"
            " FROM latency_sessions s JOIN latency_samples m ON m.number = s.number"
            " WHERE s.fingerprint = ? AND m.sha256 = ? AND m.signature = ? AND m.status = 'ok'"
            " ORDER BY s.number DESC LIMIT 1",
            device,
            *key,
        )
        return (json.loads(rows[0][0]), int(rows[0][1])) if rows else None

    def blocks(self, session_id: str, sha256: str) -> tuple[Block, ...]:
        """The raw blocks of one model in one session, in order of time."""
        rows = self._rows(
            "SELECT m.blocks FROM latency_sessions s JOIN latency_samples m USING (number)"
            " WHERE s.session_id = ? AND m.sha256 = ?",
            session_id,
            sha256,
        )
        blocks = json.loads(rows[0][0]) if rows else []
        return tuple(Block(**{**b, "samples_ns": tuple(b["samples_ns"])}) for b in blocks)

    def sessions(self, device: str) -> list[dict[str, Any]]:
        """Every session of a device as a row of plain values, oldest first."""
        names = ["session_id", "protocol", "mode", "outcome", "hot", "seed", "started_at"]
        names += ["ended_at", "timing", "anchor_ns", "drift", "facts", "message"]
        query = f"SELECT {', '.join(names)} FROM latency_sessions WHERE fingerprint = ?"
        rows = [
            dict(zip(names, row, strict=True))
            for row in self._rows(query + " ORDER BY number", device)
        ]
        for row in rows:
            row.update(timing=json.loads(row["timing"]), facts=json.loads(row["facts"]))
        return rows

    def baseline(self, device: str, protocol: int) -> Baseline | None:
        """The fixed baseline of a device; None before `fix_baseline`."""
        rows = self._rows(
            "SELECT baseline_ns, baseline_sessions FROM latency_devices"
            " WHERE fingerprint = ? AND protocol = ?",
            device,
            protocol,
        )
        return Baseline(anchor_ns=rows[0][0], sessions=rows[0][1]) if rows else None

    def current_baseline(self, device: str, protocol: int) -> Baseline | None:
        """The fixed baseline; before there is one, what it would be now.

        None without a session that gave latencies.
        """
        return self.baseline(device, protocol) or self._calm_state(device, protocol)

    def _calm_state(self, device: str, protocol: int) -> Baseline | None:
        """The anchor of a device's first calm sessions.

        A device that is busy at first must not make the calm one look fast, nor one fast session
        of four (a boost of the clock) all others slow: the calm state is that of the anchor that
        a quarter of the accepted sessions are faster than. Sessions in another do not count.
        """
        query = (
            "SELECT anchor_ns FROM latency_sessions WHERE fingerprint = ? AND protocol = ?"
            " AND anchor_ns IS NOT NULL AND outcome {} ORDER BY number"
        )
        for outcome, counts in (("= 'accepted'", True), ("!= 'accepted'", False)):
            if anchors := [row[0] for row in self._rows(query.format(outcome), device, protocol)]:
                fast = sorted(anchors)[int(FASTER_SESSIONS * len(anchors))]
                calm = [one for one in anchors if fast / SAME_STATE <= one <= SAME_STATE * fast]
                calm = calm[:BASELINE_SESSIONS]
                return Baseline(anchor_ns=median(calm), sessions=len(calm) if counts else 0)
        return None

    def fix_baseline(self, device: str, protocol: int) -> Baseline | None:
        """The baseline, stored for good at the first call that has a session to take it from."""
        fixed = self.current_baseline(device, protocol)
        if fixed is not None:
            with transaction(self._connection):
                self._connection.execute(
                    "UPDATE latency_devices SET protocol = ?, baseline_ns = ?,"
                    " baseline_sessions = ? WHERE fingerprint = ?",
                    (protocol, fixed.anchor_ns, fixed.sessions, device),
                )
        return fixed

    def slow_in_a_row(self, device: str, protocol: int, limit_ns: float) -> int:
        """The last sessions of a device in which it was busy most of the time; 2 at most.

        Their anchor is slower than `limit_ns`, or most of their blocks were kept though the
        machine was busy (`latency.calm`). No more than 2, since with less patience more blocks
        are kept that way: a device that is busy in bursts only must find back.
        """
        rows = self._rows(
            "SELECT anchor_ns, facts FROM latency_sessions WHERE fingerprint = ? AND protocol = ?"
            f" AND anchor_ns IS NOT NULL ORDER BY number DESC LIMIT {SLOW_IN_A_ROW}",
            device,
            protocol,
        )

        def slow(anchor_ns: float, facts: dict[str, Any]) -> bool:
            disturbed = facts.get("disturbed_blocks", 0)
            return anchor_ns > limit_ns or bool(2 * disturbed > facts.get("blocks", 0) > 0)

        calm = (number for number, row in enumerate(rows) if not slow(row[0], json.loads(row[1])))
        return next(calm, len(rows))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with storage_errors(database_path(self._connection)):
            return self._connection.execute(query, values).fetchall()


def _sample_row(model: ModelRecord) -> tuple[object, ...]:
    blocks = [] if model.samples is None else [vars(block) for block in model.samples.blocks]
    difference = None if model.samples is None else model.samples.max_abs_difference
    provenance = {"path": model.artifact.path.name, **model.artifact.provenance}
    return (
        model.artifact.sha256,
        model.artifact.signature,
        model.status,
        model.ratio,
        difference,
        _json(blocks),
        _json(provenance),
        model.message,
        None if model.samples is None else model.samples.energy_mj,
        None if model.samples is None else model.samples.peak_memory_bytes,
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)
