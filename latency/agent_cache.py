"""The agent's files: models and feeds under their SHA-256, as many as there is room for.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from latency.frames import FrameError

CACHE_BYTES = 2 * 1024**3
"""Files beyond this are removed, those that were not used for longest first."""
RECENT_S = 3600.0
"""Files used within this time are not removed: the next session may need them."""


class Refused(Exception):
    """A request that cannot be done; the message says why and what to do."""


class Cache:
    """A folder of files by SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, name: str) -> Path:
        """Where the file of that SHA-256 lies, or would."""
        return self.folder / hex_name(name, 64)

    def put(self, sha256: str, size: int, chunks: Iterable[bytes]) -> None:
        """Take a file in; it is kept if it is what it should be, and whole or not at all.

        Raises:
            Refused: There is no room, or that is no SHA-256.
            FrameError: It is another file.
            OSError: The disk is full, or not to be written.
        """
        path, digest = self.file(sha256), hashlib.sha256()
        partial = path.with_name(f"{sha256}.{os.getpid()}.part")
        try:
            self.make_room(size)
            with partial.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise FrameError(f"file {sha256[:12]} was changed on its way")
            partial.replace(path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()

    def damaged(self, names: Iterable[str], beat: Callable[[], None]) -> list[str]:
        """Files that are not here or not what they were; the latter are removed.

        Args:
            names: Their SHA-256.
            beat: Called after each, since large ones take a while.
        """
        result = []
        for name in sorted(names):
            path = self.file(name)
            if path.exists() and _sha256(path) == name:
                os.utime(path)
            else:
                with suppress(FileNotFoundError):
                    path.unlink()
                result.append(name)
            beat()
        return result

    def make_room(self, size: int) -> None:
        """Remove what was not used for longest, until so many bytes fit in.

        Raises:
            Refused: The disk has no such room.
        """
        if size > shutil.disk_usage(self.folder).free:
            raise Refused(f"no space left on the device for {size} bytes; free some")
        stats = [(path.stat(), path) for path in self.folder.iterdir()]
        total = size + sum(stat.st_size for stat, _ in stats)
        for stat, path in sorted(stats, key=lambda item: item[0].st_mtime):
            if total > CACHE_BYTES and stat.st_mtime < time.time() - RECENT_S:
                path.unlink()
                total -= stat.st_size

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def hex_name(name: str, digits: int) -> str:
    """A name from the link becomes a file name only if it is plain hex.

    Raises:
        Refused: It is not.
    """
    if len(name) != digits or set(name) - set("0123456789abcdef"):
        raise Refused(f"{name[:80]!r} is not {digits} hex digits")
    return name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
