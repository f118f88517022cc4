"""Whether a command works on a run directory, without touching its lock.

Trying the lock would hold it for a moment, and a command that starts then would be turned away.
"""

import json
import os
import stat
from pathlib import Path


def is_at_work(directory: Path) -> bool:
    """Whether the process that last took the lock is alive and still holds it.

    A process of another computer, which shares the disk, cannot be seen.
    """
    lock = directory / ".lock"
    try:
        process = json.loads(_beginning(lock))["process"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(process, int) and process > 0 and _has_open(process, lock)


def _beginning(lock: Path) -> bytes:
    """Of a lock as commands write it: a pipe or a device in its place might never end."""
    with os.fdopen(os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(200) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""


def _has_open(process: int, lock: Path) -> bool:
    handles = Path(f"/proc/{process}/fd")
    try:
        target = lock.stat()
        for handle in handles.iterdir():
            try:
                found = handle.stat()
            except OSError:  # closed meanwhile
                continue
            if (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino):
                return True
        return False
    except PermissionError:
        return True  # another user's, and alive
    except OSError:
        return not Path("/proc/self/fd").exists() and _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
