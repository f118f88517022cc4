"""Latency tables in the run database: measured here, or imported from a file.

A row is known by (device fingerprint, backend, precision, mode; network; workload, kind, widths).
Rows of another fingerprint stay as they are, and are used for nothing but to say what changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from latency.database import (
    damaged_rows,
    database_path,
    ensure_schema,
    storage_errors,
    transaction,
)
from search_spaces.blocks import Workload

SCHEMA_VERSION = 2

# tables: a row per device, network and mode. table_rows: what was measured with them.
_SCHEMA = (
    """CREATE TABLE tables (
        number INTEGER PRIMARY KEY, device TEXT NOT NULL, identity TEXT NOT NULL UNIQUE,
        used_at TEXT NOT NULL)""",
    "CREATE INDEX tables_device ON tables (device)",
    """CREATE TABLE table_rows (
        number INTEGER NOT NULL REFERENCES tables, workload TEXT NOT NULL, kind TEXT NOT NULL,
        widths TEXT NOT NULL, latency_ms REAL NOT NULL, low_ms REAL, high_ms REAL,
        sessions INTEGER NOT NULL, status TEXT NOT NULL, imported INTEGER NOT NULL,
        provenance TEXT NOT NULL, energy_mj REAL, peak_memory_bytes REAL,
        PRIMARY KEY (number, workload, kind, widths))""",
)
_UPGRADES = {
    1: (
        "ALTER TABLE table_rows ADD COLUMN energy_mj REAL",
        "ALTER TABLE table_rows ADD COLUMN peak_memory_bytes REAL",
    )
}

_VALUES = (
    *("latency_ms", "low_ms", "high_ms", "energy_mj", "peak_memory_bytes"),
    *("sessions", "status", "imported", "provenance"),
)
_INSERT = (
    f"INSERT INTO table_rows (number, workload, kind, widths, {', '.join(_VALUES)})"
    f" VALUES ({', '.join('?' * (4 + len(_VALUES)))}) ON CONFLICT DO UPDATE SET"
    f" {', '.join(f'{name} = excluded.{name}' for name in _VALUES)}"
    f" WHERE (imported OR NOT excluded.imported) AND"
    f" ({', '.join(f'table_rows.{name}' for name in _VALUES)}) IS NOT"
    f" ({', '.join(f'excluded.{name}' for name in _VALUES)})"
)

SUBNET = "subnet"
"""Kind of a row that is a whole subnet; its widths are the architecture."""


@dataclass(frozen=True, kw_only=True)
class TableIdentity:
    """What the latencies of a table belong to: other than this, they are not comparable."""

    device: str
    """Name of the device profile."""
    backend: str
    precision: str
    """Arithmetic of the models, such as `fp32`."""
    threads: int
    mode: str
    """`quick` or `standard`."""
    protocol: int
    """Version of the measuring protocol."""
    fingerprint: Mapping[str, str]
    """All that may change a latency; see `latency.backend.DeviceBackend`."""
    network: Mapping[str, Any]
    """What all subnets of the space share: family, head_dim, image size or vocabulary, ..."""

    def text(self) -> str:
        """The same for equal identities."""
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":"), default=dict)

    def changes(self, new: TableIdentity) -> list[str]:
        """What is another in `new`, such as `kernel 6.1 -> 6.2`; empty where nothing is."""
        old_facts, new_facts = (
            {
                "backend": one.backend,
                "precision": one.precision,
                "threads": str(one.threads),
                **one.fingerprint,
            }
            for one in (self, new)
        )
        names = dict.fromkeys([*old_facts, *new_facts])
        return [
            f"{name} {old_facts.get(name, 'none')} -> {new_facts.get(name, 'none')}"
            for name in names
            if old_facts.get(name) != new_facts.get(name)
        ]


@dataclass(frozen=True, kw_only=True)
class StoredRow:
    """One measured block or whole subnet."""

    workload: Workload
    kind: str
    """`fixed`, `attention` or `ffn`; or `subnet`, measured whole."""
    widths: Mapping[str, int | str]
    """Name and size of every width; of a subnet, its genes. Schemes as `precision.PART`, with their
    version (`search_spaces.schemes.with_version`)."""
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    """Ends of the 95 % interval over sessions; None where it is not known."""
    sessions: int
    status: str
    """`ok` or `unstable`."""
    energy_mj: float | None = None
    peak_memory_bytes: float | None = None
    """See `latency.backend.Samples`; None where the device does not tell."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """`models`: SHA-256 and what their files say. `sessions`: id, seed, times, ratios, facts."""
    imported: bool = field(default=False, compare=False)
    """Whether it came from a file."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What the row is known by within its table."""
        return (str(self.workload), self.kind, json.dumps(dict(self.widths), sort_keys=True))


class TableStore:
    """Reads and writes the tables of a connection from `latency.database.connect`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Create the tables where they are missing.

        Raises:
            UserError: The tables are of another version.
        """
        ensure_schema(connection, "tables", SCHEMA_VERSION, _SCHEMA, _UPGRADES)
        self._connection = connection

    def tables(self, device: str) -> list[tuple[TableIdentity, str]]:
        """The tables of a device and when they were used (ISO 8601, UTC); the last one first."""
        query = (
            "SELECT identity, used_at FROM tables WHERE device = ? ORDER BY used_at DESC,"
            " number DESC"
        )
        found = self._rows(query, device)
        with damaged_rows(database_path(self._connection)):
            return [(TableIdentity(**json.loads(text)), used_at) for text, used_at in found]

    def devices(self) -> list[str]:
        """Names of all devices that have a table."""
        return [name for (name,) in self._rows("SELECT DISTINCT device FROM tables ORDER BY 1")]

    def rows(self, identity: TableIdentity) -> list[StoredRow]:
        """All rows of a table, in the order in which they came."""
        names = ("workload", "kind", "widths", *_VALUES)
        columns = ", ".join(f"r.{name}" for name in names)
        found = self._rows(
            f"SELECT {columns} FROM table_rows r JOIN tables USING (number)"
            " WHERE identity = ? ORDER BY r.rowid",
            identity.text(),
        )
        with damaged_rows(database_path(self._connection)):
            return [_stored_row(dict(zip(names, values, strict=True))) for values in found]

    def add(self, rows: Iterable[tuple[TableIdentity, StoredRow]]) -> int:
        """Store rows, all or none; a later one of the same key takes the place of an earlier.

        What was measured here never gives way to what is imported. The tables count as used now.

        Returns:
            How many rows are new or changed.

        Raises:
            UserError: The disk is full or the file locked.
        """
        changed = 0
        with transaction(self._connection):
            numbers: dict[str, int] = {}
            for identity, row in rows:
                text = identity.text()
                if text not in numbers:
                    numbers[text] = self._use(identity.device, text)
                _, kind, widths = row.key
                values = {
                    **{name: getattr(row, name) for name in _VALUES},
                    "provenance": json.dumps(
                        dict(row.provenance), separators=(",", ":"), default=str
                    ),
                }
                changed += self._connection.execute(
                    _INSERT,
                    (
                        numbers[text],
                        json.dumps(row.workload.to_json()),
                        kind,
                        widths,
                        *values.values(),
                    ),
                ).rowcount
        return changed

    def _use(self, device: str, identity: str) -> int:
        now = datetime.now(UTC).isoformat()
        row = self._connection.execute(
            "INSERT INTO tables (device, identity, used_at) VALUES (?, ?, ?)"
            " ON CONFLICT (identity) DO UPDATE SET used_at = excluded.used_at RETURNING number",
            (device, identity, now),
        ).fetchone()
        return int(row[0])

    def _rows(self, query: str, *values: object) -> list[Any]:
        with storage_errors(database_path(self._connection)):
            return self._connection.execute(query, values).fetchall()


def _stored_row(values: dict[str, Any]) -> StoredRow:
    parsed = {name: json.loads(values[name]) for name in ("workload", "widths", "provenance")}
    workload = Workload(**parsed["workload"])
    imported = bool(values["imported"])
    return StoredRow(**{**values, **parsed, "workload": workload, "imported": imported})
