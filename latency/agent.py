"""The agent: what runs on a device that another host measures on.

It needs Python 3.9 and the device's runtime, and is copied over at every connection
(`latency.bundle`). It is three kinds of process:

- `serve` talks frames on stdin and stdout, and ends with the link or when nobody talks to it.
- `work` (`latency.agent_worker`) runs one session and keeps what became of it in a file. It is not
  the child of a link: when the link is cut it goes on, and whoever asks for the same session again
  gets that result.
- `session` is the fresh process that times (`latency.session`).

Everything lies in one folder: `files/` (models and feeds by SHA-256), `timings/` (what a
TensorRT builder learned), `sessions/` (those under way, and results that were not forgotten), the
agent itself while it runs, and `measuring.lock`, which makes sessions of several hosts wait for
one another. State is in files and in locks that
the system drops with their holder, so killing any process at any moment loses at most the
session in work.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from latency import host_facts
from latency.agent_cache import Cache, Refused, hex_name
from latency.agent_worker import is_locked, read_json, start_worker, work
from latency.frames import CHUNK_BYTES, FrameError, FrameReader, pack

IDLE_S = 900.0
"""Without a word from the other end for so long, `serve` ends."""
WRITE_S = 60
"""A write that the link does not take in so long ends `serve`."""
BEAT_S = 1.0
"""Time between signs of life while a session runs."""
KEEP_S = 86400.0
"""Results that nobody asked for, and torn uploads, are removed after so long."""
FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
"""Errors of the device's disk that a second try does not mend."""


class LinkEnded(Exception):
    """The other end is gone."""


class Agent:
    """One connection: requests in, replies out.

    Every request is an object with `id` and `do`; its reply has the same `id`. While a session
    runs, `{"id": ..., "alive": true}` comes about once a second.
    """

    def __init__(self, folder: Path, incoming: int, outgoing: int) -> None:
        """Open the folder.

        Args:
            folder: Where everything of the agent lies.
            incoming: File descriptor that requests come from.
            outgoing: File descriptor for replies.
        """
        self.folder, self.sessions = folder, folder / "sessions"
        self.cache = Cache(folder / "files")
        self.incoming, self.outgoing = incoming, outgoing
        self.reader = FrameReader()
        self.request_id: object = 0
        self.beaten = 0.0
        self.sessions.mkdir(exist_ok=True)
        self._remove_old()

    def serve(self) -> None:
        """Answer requests until the link ends."""
        self._send({"hello": platform.python_version()})
        actions: dict[str, Callable[..., dict[str, Any] | None]] = {
            "describe": self.describe,
            "missing": self.missing,
            "put": self.put,
            "get": self.get,
            "session": self.session,
            "forget": self.forget,
            "clean": self.clean,
        }
        while True:
            message = self._receive()
            if not isinstance(message, dict) or message.get("do") not in actions:
                raise FrameError(f"not a request: {str(message)[:80]}")
            self.request_id = message.pop("id", None)
            try:
                reply = actions[message.pop("do")](**message)
            except (LinkEnded, FrameError):
                raise
            except Exception as error:  # the other end shall know, whatever it is
                final = isinstance(error, Refused) or getattr(error, "errno", None) in FINAL
                reply = {"refused": str(error)} if final else {"failed": repr(error)}
            if reply is not None:
                self._send(reply)

    def describe(self) -> dict[str, Any]:
        """The device; see `latency.host_facts.describe`. Its fingerprint says which one it is."""
        description = host_facts.describe()
        description["fingerprint"]["device"] = host_facts.device_id()
        return description

    def missing(self, files: list[str]) -> dict[str, Any]:
        """Which of these files (SHA-256) are not here."""
        return {"missing": [name for name in files if not self.cache.file(name).exists()]}

    def put(self, sha256: str, size: int) -> dict[str, Any]:
        """Take a file in the raw frames that follow; it is kept if it is what it should be."""
        chunks = self._chunks(size)
        try:
            self.cache.put(sha256, size, chunks)
        except (Refused, OSError):
            for _ in chunks:  # the rest is on its way: what follows it shall be understood
                pass
            raise
        return {}

    def _chunks(self, size: int) -> Iterator[bytes]:
        """The raw frames of a file."""
        left = size
        while left > 0:
            chunk = self._receive()
            if not isinstance(chunk, bytes) or len(chunk) > left:
                raise FrameError("a request in the middle of a file")
            left -= len(chunk)
            yield chunk

    def get(self, sha256: str) -> None:
        """Give a file: a reply with its size, and then its bytes in raw frames."""
        path = self.cache.file(sha256)
        if not path.exists():
            raise Refused(f"file {sha256[:12]} is not there any more; run the same command again")
        content = path.read_bytes()
        self._send({"size": len(content)})
        for start in range(0, len(content), CHUNK_BYTES):
            self._write(pack(content[start : start + CHUNK_BYTES]))

    def session(self, session: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Run a session, or join it where it runs already, or give its result.

        Args:
            session: Its name, 32 hex digits: the same name is the same session.
            request: What `latency.session` takes. Its files are SHA-256; a model with `unpack` is
                an archive of a folder with that suffix. With `build`, an engine is built, and
                kept among the files.
            timeout_s: See `latency.session_process.run_process`.

        Returns:
            `{"outcome": ...}` of `run_process`, or `{"missing": [...]}` with files to put first.
        """
        folder = self._session_folder(session)
        worker: subprocess.Popen[bytes] | None = None
        while True:
            # A worker writes its result, lets go of the lock, and ends: looked at the other way
            # round. Its result counts once it has let go: one that runs cannot be forgotten
            ended = worker is not None and worker.poll() is not None
            running = is_locked(folder / "lock")
            outcome = None if running else self._result(folder)
            if outcome is not None:
                return {"outcome": outcome}
            if ended and not running:
                words = (folder / "stderr").read_text(errors="replace").strip().splitlines()[-1:]
                line = ": ".join(["the agent lost its session", *words])
                return {"outcome": {"lost": line, "sha256": None}}
            if worker is None and not running:
                if missing := self.cache.damaged(_files(request), self._beat):
                    return {"missing": missing}
                worker = start_worker(self.folder, folder, request, timeout_s)
            self._beat()
            self._listen(0.1)

    def forget(self, session: str) -> dict[str, Any]:
        """Remove the result of a session: it was received."""
        folder = self._session_folder(session)
        if not is_locked(folder / "lock"):
            shutil.rmtree(folder, ignore_errors=True)
        return {}

    def clean(self) -> dict[str, Any]:
        """Remove all files and all sessions that do not run; the agent itself goes at its end."""
        self.cache.clear()
        shutil.rmtree(self.folder / "timings", ignore_errors=True)
        for folder in list(self.sessions.iterdir()):
            self.forget(folder.name)
        if not any(self.sessions.iterdir()):
            self.sessions.rmdir()
            with suppress(FileNotFoundError):
                (self.folder / "measuring.lock").unlink()
        return {}

    def _result(self, folder: Path) -> Any:
        """What became of a session; None if that is not known, or its engine is gone."""
        outcome = read_json(folder / "result.json")
        engine = (outcome or {}).get("reply", {}).get("built")
        if engine is not None and not self.cache.file(engine).exists():
            (folder / "result.json").unlink()
            return None
        return outcome

    def _session_folder(self, name: str) -> Path:
        return self.sessions / hex_name(name, 32)

    def _remove_old(self) -> None:
        limit = time.time() - KEEP_S
        for path in [*self.cache.folder.glob("*.part"), *self.sessions.iterdir()]:
            with suppress(OSError):
                if path.stat().st_mtime > limit:
                    continue
                if not path.is_dir():
                    path.unlink()
                elif not is_locked(path / "lock"):
                    shutil.rmtree(path)

    def _beat(self) -> None:
        if time.monotonic() - self.beaten >= BEAT_S:
            self._send({"alive": True})

    def _send(self, message: dict[str, Any]) -> None:
        self.beaten = time.monotonic()
        self._write(pack({"id": self.request_id, **message}))

    def _write(self, frame: bytes) -> None:
        data = memoryview(frame)
        signal.alarm(WRITE_S)  # a stalled link would hold us in `write` for ever
        try:
            while data:
                data = data[os.write(self.outgoing, data) :]
        except OSError:
            raise LinkEnded from None
        finally:
            signal.alarm(0)

    def _receive(self) -> dict[str, Any] | bytes:
        while (frame := self.reader.next()) is None:
            if not self._listen(IDLE_S):
                raise LinkEnded
        return frame

    def _listen(self, timeout_s: float) -> bool:
        """Take in what has arrived; False if nothing did."""
        if not select.select([self.incoming], [], [], timeout_s)[0]:
            return False
        data = os.read(self.incoming, 1 << 18)
        if not data:
            raise LinkEnded
        self.reader.feed(data)
        return True


def _files(request: dict[str, Any]) -> set[str]:
    """SHA-256 of the files that a session needs."""
    names = {model[kind] for model in request["models"] for kind in ("path", "feeds")}
    return names | ({request["build"]["model"]} if "build" in request else set())


def serve(folder: Path) -> None:
    """Serve one link on stdin and stdout."""
    # Nothing but frames may get out: whatever else is printed goes to stderr
    outgoing = os.dup(1)
    os.dup2(2, 1)
    with suppress(LinkEnded, FrameError):
        Agent(folder, 0, outgoing).serve()


def main() -> None:
    """Run the agent as the kind of process that the arguments name."""
    if sys.argv[1] == "session":
        from latency.session import main as session

        session()
        return
    os.umask(0o077)
    folder = Path(sys.argv[2])
    # A worker was given the file by who started it, with the lock
    held = int(sys.argv[4]) if sys.argv[1] == "work" else sys.argv[0]
    with open(held, "rb") as program:  # noqa: PTH123 - may be a descriptor
        fcntl.flock(program, fcntl.LOCK_SH)
        try:
            if sys.argv[1] == "work":
                work(folder, sys.argv[3])
            else:
                serve(folder)
        finally:
            _leave(program)
    with suppress(OSError):
        folder.rmdir()  # only if `clean` emptied it


def _leave(program: BinaryIO) -> None:
    """Remove the agent's own file unless another process of it runs."""
    with suppress(OSError):
        fcntl.flock(program, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(sys.argv[0]).unlink()
