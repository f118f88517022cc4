"""stdout is for results: with `--json` it carries one document, whatever libraries print."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what the block prints to stderr, also from child processes and C libraries."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kept = os.dup(_STDOUT)
        except OSError:  # the process was started without a stdout
            yield
            return
        try:
            os.dup2(_STDERR, _STDOUT)
            yield
        finally:
            os.dup2(kept, _STDOUT)
            os.close(kept)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print_text(json.dumps(document, indent=1, ensure_ascii=False, default=str))


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the plain values of a summary on stdout, one on a line."""
    for name, value in summary.items():
        if isinstance(value, (str, int, float, os.PathLike)):
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            print_text(f"{name.replace('_', ' ')}: {shown}")


def print_text(text: str) -> None:
    """Print on stdout; a reader that has gone away is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain then.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def print_line(text: str) -> None:
    """Print one line on stderr."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)
