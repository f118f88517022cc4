"""What a device's agent finished, seen beside the link that carries it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class Witness:
    """Reads every result that the agent leaves from now on, as soon as it is there.

    What lies there already is of those who came before: a host that was killed after it had
    stored a session could not tell the agent to forget it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, dict[str, str]] = {}
        """Digest of the samples by model, by session."""
        self._known = {key for key, _ in self._results()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._done.set()
        self._thread.join()

    def _results(self) -> Iterator[tuple[tuple[str, int], Path]]:
        """What tells each result from others of that name, and its file."""
        for path in self.folder.glob("sessions/*/result.json"):
            with suppress(FileNotFoundError):
                yield (path.parent.name, path.stat().st_mtime_ns), path

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for key, path in self._results():
                if key in self._known:
                    continue
                try:
                    outcome = json.loads(path.read_text())
                except FileNotFoundError:
                    continue
                self._known.add(key)
                if "reply" in outcome:
                    reply = outcome["reply"]
                    self.seen[session_key(reply["facts"])] = {
                        model["sha256"]: digest(model["blocks"]) for model in reply["models"]
                    }


def session_key(facts: dict[str, Any]) -> str:
    """Tells the sessions of a device apart, whatever they are called."""
    return f"{facts['pid']} {facts['started_at']}"


def digest(blocks: Any) -> str:
    """What a model's samples of a session are compared by."""
    return hashlib.sha256(json.dumps(blocks, sort_keys=True).encode()).hexdigest()
