"""What happened in a run directory, a JSON line per event, for people and for the report."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latency.files import storage_error


class Events:
    """Appends to `events.jsonl`.

    An event goes to the file in one write, so that a kill can tear the last line only; the next
    writer closes a torn line, and readers leave it out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **fields: Any) -> None:
        """Append an event.

        Args:
            event: What happened, such as `"stage_started"`.
            fields: JSON values that belong to it.

        Raises:
            UserError: The disk is full.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **fields}, default=str) + "\n"
        try:
            with self.path.open("ab+") as file:
                if file.tell() > 0:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            raise storage_error(error, self.path) or error from error

    def read(self) -> list[dict[str, Any]]:
        """Return all whole events, oldest first."""
        return read_lines(self.path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a line log; torn lines are left out, a missing file is empty."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
