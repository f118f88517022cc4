"""Ctrl-C and SIGTERM that wait for the end of a step, so that what it did can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Hold the first interruption back, for the block to end in its own time.

    Yields:
        Whether one is held back.

    Raises:
        KeyboardInterrupt: At the end of the block, for the one held back; a second one acts at
            once.
    """
    arrived = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        if arrived:
            raise KeyboardInterrupt
        arrived = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python tells signals to the main thread only
        return
    previous = {number: signal.signal(number, hold) for number in SIGNALS}
    try:
        yield lambda: arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt
