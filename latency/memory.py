"""How much memory a model needs at its peak, within a process that holds others already.

Part of the agent: standard library and Python 3.9 only.

Linux forgets a process's peak of resident memory when 5 is written to its `clear_refs`. What was
freed before is given back first, or a model would be laid into the holes that others left.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")


class PeakMemory:
    """Growth of resident memory from here on, at its peak.

    Args:
        process: The process's folder in `/proc`.
    """

    def __init__(self, process: Path = PROCESS) -> None:
        self._process = process
        self._before: int | None = None
        gc.collect()
        _trim()
        try:
            (process / "clear_refs").write_text("5")
            self._before = _bytes(process, "VmRSS")
        except (OSError, ValueError):
            pass  # another system, or one that does not allow it

    def grown_bytes(self) -> int | None:
        """Peak since then, less what there was then; None where the system does not tell."""
        if self._before is None:
            return None
        try:
            grown = _bytes(self._process, "VmHWM") - self._before
        except (OSError, ValueError):
            return None
        return max(grown, 0)


def _bytes(process: Path, name: str) -> int:
    for line in (process / "status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise ValueError(f"{name} is not in {process / 'status'}")


def _trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
