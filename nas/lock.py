"""One writer per run directory."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from latency.files import storage_error
from nas.run_directory import short
from search_spaces.errors import UserError

_held: set[int] = set()


class Lock:
    """An exclusive `flock` on a file; the kernel drops it when the process ends, or is killed."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            UserError: Another process has it, or the file system knows no locks.
        """
        self._handle: int | None = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error(error, path) or error from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            raise UserError(
                f"{short(path.parent)} is in use by another nas command{owner}; wait until it "
                "ends, or give this one its own directory with output=DIRECTORY"
            ) from None
        except OSError as error:
            os.close(handle)
            raise UserError(
                f"cannot lock {path}: {error.strerror}; put the run directory on a local disk "
                "with output=DIRECTORY"
            ) from None
        self._handle = handle
        _held.add(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"process": os.getpid()}).encode(), 0)

    def release(self) -> None:
        """Let the next command in; a second call does nothing."""
        if self._handle is not None:
            _held.discard(self._handle)
            os.close(self._handle)
            self._handle = None


def _owner(handle: int) -> str:
    try:
        return f" (process {int(json.loads(os.pread(handle, 200, 0))['process'])})"
    except (ValueError, KeyError, TypeError):
        return ""


def _close_in_child() -> None:
    """Close the locks that a fork copied: a worker that outlives its parent must not hold them."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
