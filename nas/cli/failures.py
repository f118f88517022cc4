"""What a failure means to the user: an exit code and one line."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

BUG = 1
USER = 2
FAILED_MEASUREMENTS = 4
INTERRUPTED = 130

TRACEBACK_NOTE = "it is kept in "
"""How the note begins that a bug carries, which names the file with its traceback."""


class Failure(NamedTuple):
    """How a command ended that did not end well."""

    exit_code: int
    """The exit code of the process."""
    message: str
    """One line for stderr, without the name of the program."""


def explain(error: BaseException) -> Failure | None:
    """Say what a failure means, or return None for a bug.

    Args:
        error: What ended the command.
    """
    from latency.files import storage_error
    from search_spaces.errors import UserError

    if isinstance(error, UserError):
        return Failure(error.exit_code, str(error))
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "interrupted; the same command goes on from here")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Failure(
            USER, "out of memory; lower task.batch_size, or take smaller widths in space"
        )
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return Failure(USER, "no space left on the disk; free some and run the same command again")
    if isinstance(error, OSError):
        refused = storage_error(error)
        if refused is not None:
            return Failure(refused.exit_code, str(refused))
    return None
