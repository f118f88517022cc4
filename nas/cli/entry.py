"""From a command line to an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from nas.cli.commands import COMMANDS, DEBUG, JSON
from nas.cli.parser import UsageError, parse
from nas.cli.streams import (
    print_json,
    print_line,
    print_summary,
    print_text,
    stdout_to_stderr,
)

Handler = Callable[[Any], dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code: 0 done, 1 a bug, 2 usage or configuration, 3 nothing feasible, 4 finished
        with failed measurements, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        from nas.environment import package_version

        print_text(f"nas {package_version()}")
        return 0
    # PyTorch's threads spin while they wait, which made training half as fast on a busy machine.
    # The variable is read when torch is imported, which comes later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    name = words[0] if words and words[0] in COMMANDS else "nas"
    as_json = JSON in words
    try:
        with _terminations_interrupt():
            arguments = parse(words)
            apart = as_json and not COMMANDS[name].announces
            with stdout_to_stderr() if apart else contextlib.nullcontext():
                summary = _handler(name)(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except UsageError as error:
        return _fail(name, error.exit_code, str(error), as_json=as_json)
    except BaseException as error:
        return _explain(name, error, as_json=as_json, debug=DEBUG in words)
    return _finish(name, summary, as_json=as_json)


def _handler(name: str) -> Handler:
    from importlib import import_module

    module, _, function = COMMANDS[name].handler.partition(":")
    handler: Handler = getattr(import_module(module), function)
    return handler


def _finish(name: str, summary: dict[str, Any], *, as_json: bool) -> int:
    from nas.cli.failures import FAILED_MEASUREMENTS, USER

    failed = int(summary.get("failed_measurements") or 0)
    exit_code = FAILED_MEASUREMENTS if failed else 0
    if summary.get("ok") is False:
        exit_code = USER
    if as_json:
        print_json({"schema": 1, "command": name, "exit_code": exit_code, **summary})
    else:
        print_summary({key: value for key, value in summary.items() if key != "ok"})
    if failed:
        print_line(
            f"nas {name}: {failed} measurement{'s' * (failed > 1)} failed; the report says which, "
            f"and nas doctor what may be wrong with the device"
        )
    return exit_code


def _explain(name: str, error: BaseException, *, as_json: bool, debug: bool) -> int:
    import traceback

    from nas.cli.failures import BUG, TRACEBACK_NOTE, explain

    if debug:
        traceback.print_exception(error)
    failure = explain(error)
    if failure is not None:
        return _fail(name, failure.exit_code, f"nas {name}: {failure.message}", as_json=as_json)
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(TRACEBACK_NOTE)]
    message = (
        f"nas {name}: {type(error).__name__}: {error}; this is a bug, please report it with the "
        f"traceback: {notes[0] if notes else f'{DEBUG} shows it'}"
    )
    return _fail(name, BUG, message, as_json=as_json)


def _fail(name: str, exit_code: int, message: str, *, as_json: bool) -> int:
    print_line(message)
    if as_json:
        print_json({"schema": 1, "command": name, "exit_code": exit_code, "error": message})
    return exit_code


@contextlib.contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: in order, and to be resumed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
