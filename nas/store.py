"""Qualities that were evaluated once, and serve every later search and device."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from latency.database import damaged_rows, ensure_schema, storage_errors, transaction
from latency.database import database_path as path_of
from search_spaces import Architecture
from search_spaces.errors import UserError

_SCHEMA_VERSION = 1
_TABLES = (
    "CREATE TABLE evaluations ("
    "id INTEGER PRIMARY KEY, "
    "supernet TEXT NOT NULL, "
    "architecture TEXT NOT NULL, "
    "split TEXT NOT NULL, "
    "metrics TEXT NOT NULL, "
    "created REAL NOT NULL, "
    "UNIQUE (supernet, split, architecture))",
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One row of the store."""

    supernet_hash: str
    """Hash of the supernet's weights."""
    split: str
    """Part of the data, such as `validation`."""
    architecture: Architecture
    """The subnet."""
    metrics: Mapping[str, float]
    """Its metrics by name."""
    created_s: float
    """When it was added, seconds since 1970."""


class EvaluationStore:
    """Metrics by (supernet hash, split, architecture), in the run's database.

    What `add` has returned from survives a kill and a power cut. The first evaluation of an
    architecture stays: a second one is ignored, so that a front never changes under its feet.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Open the store, and make its table when missing.

        Args:
            connection: From `latency.database.connect`.

        Raises:
            UserError: The table was written by another version, or the disk is full.
        """
        self._connection = connection
        self._path = path_of(connection)
        ensure_schema(connection, "nas", _SCHEMA_VERSION, _TABLES)

    def get(
        self, supernet_hash: str, architecture: Architecture, split: str
    ) -> dict[str, float] | None:
        """Return the metrics of an architecture, or None when it was never evaluated."""
        with storage_errors(self._path):
            row = self._connection.execute(
                "SELECT metrics FROM evaluations "
                "WHERE supernet = ? AND split = ? AND architecture = ?",
                (supernet_hash, split, architecture.to_json()),
            ).fetchone()
        with damaged_rows(self._path):
            return None if row is None else dict(json.loads(row[0]))

    def add(
        self,
        supernet_hash: str,
        split: str,
        metrics: Mapping[Architecture, Mapping[str, float]],
    ) -> int:
        """Add evaluations in one transaction: all of them, or none.

        Args:
            supernet_hash: Hash of the supernet's weights.
            split: Part of the data that was evaluated.
            metrics: Metrics of each architecture.

        Returns:
            How many were new; those known already are left as they are.

        Raises:
            UserError: A metric is not finite, or the disk is full. Nothing was added then.
        """
        rows = []
        created_s = time.time()
        for architecture, values in metrics.items():
            plain = {name: float(value) for name, value in values.items()}
            for name, value in plain.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"{name} of architecture {architecture.to_json()} is {value} on the "
                        f"{split} split; the supernet has diverged: train it anew with a lower "
                        "training.learning_rate"
                    )
            rows.append(
                (supernet_hash, architecture.to_json(), split, json.dumps(plain), created_s)
            )
        before = self._connection.total_changes
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT OR IGNORE INTO evaluations "
                "(supernet, architecture, split, metrics, created) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
        return self._connection.total_changes - before

    def all(self, supernet_hash: str, split: str) -> dict[Architecture, dict[str, float]]:
        """Return everything that is known of a supernet on a split, in the order it was added."""
        with storage_errors(self._path):
            found = self._connection.execute(
                "SELECT architecture, metrics FROM evaluations "
                "WHERE supernet = ? AND split = ? ORDER BY id",
                (supernet_hash, split),
            ).fetchall()
        with damaged_rows(self._path):
            return {Architecture.from_json(text): json.loads(metrics) for text, metrics in found}

    def rows(self) -> list[Evaluation]:
        """Return every evaluation with its time, in the order it was added."""
        with storage_errors(self._path):
            found = self._connection.execute(
                "SELECT supernet, split, architecture, metrics, created "
                "FROM evaluations ORDER BY id"
            ).fetchall()
        return [
            Evaluation(
                supernet_hash=supernet,
                split=split,
                architecture=Architecture.from_json(architecture),
                metrics=json.loads(metrics),
                created_s=created_s,
            )
            for supernet, split, architecture, metrics, created_s in found
        ]

    def count(self) -> int:
        """Return how many evaluations were ever computed: one row is one computation."""
        with storage_errors(self._path):
            row = self._connection.execute("SELECT count(*) FROM evaluations").fetchone()
        return int(row[0])
