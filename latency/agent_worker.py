"""The agent's worker: one session in a process of its own, which no link is the parent of.

Part of the agent: standard library and Python 3.9 only.

A session has a folder: `request.json`, `lock`, which the worker holds while it runs, and
`result.json`, what became of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latency.agent_cache import Cache, hex_name
from latency.session_process import run_process


def start_worker(
    root: Path, folder: Path, request: dict[str, Any], timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start a worker for a session.

    Args:
        root: The agent's folder.
        folder: The session's.
        request: See `latency.agent.Agent.session`; its files are here.
        timeout_s: See `latency.session_process.run_process`.
    """
    cache = Cache(root / "files")
    folder.mkdir(parents=True, exist_ok=True)
    models = [_model(model, folder, cache) for model in request["models"]]
    request = {**request, "models": models}
    if "build" in request:
        timings = root / "timings" / hex_name(request["build"]["timings"], 64)
        timings.parent.mkdir(exist_ok=True)
        request["build"] = {
            **request["build"],
            "model": str(cache.file(request["build"]["model"])),
            "engine": str(folder / "engine"),
            "timings": str(timings),
        }
    write_json(folder / "request.json", {"request": request, "timeout_s": timeout_s})
    with (folder / "stderr").open("wb") as stderr, Path(sys.argv[0]).open("rb") as program:
        # Held for the worker from now on: we may be gone before it runs
        fcntl.flock(program, fcntl.LOCK_SH)
        held = program.fileno()
        return subprocess.Popen(
            [sys.executable, sys.argv[0], "work", str(root), folder.name, str(held)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[held],
            start_new_session=True,
        )


def _model(model: dict[str, Any], folder: Path, cache: Cache) -> dict[str, Any]:
    """A model with its files' places on this disk."""
    path = cache.file(model["path"])
    if model["unpack"] is not None:
        archive, path = path, folder / (path.name + model["unpack"])
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(path)
    return {**model, "path": str(path), "feeds": str(cache.file(model["feeds"]))}


def work(root: Path, name: str) -> None:
    """Run one session when no other one runs on this device, and keep what became of it."""
    own = root / "sessions" / name
    with lock(own / "lock") as valid:
        # Somebody else did it, or nobody wants it any more
        if not valid or (own / "result.json").exists():
            return
        job = json.loads((own / "request.json").read_text())
        with lock(root / "measuring.lock"):
            command = [sys.executable, sys.argv[0], "session"]
            outcome = run_process(command, job["request"], timeout_s=job["timeout_s"])
        if engine := outcome.get("reply", {}).get("built"):
            (own / "engine").replace(root / "files" / engine)
        write_json(own / "result.json", outcome)


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock file; False if it was removed while we waited for it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")  # two links may ask for one session
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
