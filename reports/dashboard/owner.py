"""Whether a command works on a run directory, without touching its lock.

Trying the lock would hold it for a moment, and a command that starts then would be turned away.
"""

import json
import os
from pathlib import Path


def is_at_work(directory: Path) -> bool:
    """Whether the process that last took the lock is alive and still holds it.

    A process of another computer, which shares the disk, cannot be seen.
    """
    lock = directory / ".lock"
    try:
        process = int(json.loads(lock.read_bytes()[:200])["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return process > 0 and _has_open(process, lock)


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
