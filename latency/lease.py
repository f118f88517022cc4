"""One measurement at a time: a lock that the system drops when its holder dies, however it dies."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latency.database import storage_errors
from search_spaces.errors import UserError


@contextmanager
def device_lease(
    device: str,
    *,
    notify: Callable[[str], None] | None = None,
    poll_s: float = 0.2,
    timeout_s: float | None = None,
) -> Iterator[None]:
    """Hold the lease of a physical device of this user; wait while another process has it.

    Args:
        device: Name of the physical device, not of a profile: all profiles of one host share it.
        notify: Told once, in a line, when there is somebody to wait for.
        poll_s: Time between two tries.
        timeout_s: Longest wait; None waits for ever.

    Raises:
        UserError: The lock file cannot be written, or the wait was too long.
    """
    import fcntl

    path = lease_path(device)
    with storage_errors(path):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags, 0o600)
    try:
        start, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            if not told and notify is not None:
                where = "this host" if device == "host" else device
                notify(f"waiting for process {holder}, which is measuring on {where}")
            told = True
            if timeout_s is not None and time.monotonic() - start > timeout_s:
                raise UserError(
                    f"process {holder} has been measuring on {device} for over {timeout_s:g} s; "
                    "wait for it or end it, then run again"
                )
            time.sleep(poll_s)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def lease_path(device: str) -> Path:
    """The lock file of a device."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", device)
    return Path(tempfile.gettempdir()) / f"elastic-nas-{os.getuid()}-{name}.lock"
