"""The commands that work on a run directory."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.cli.failures import TRACEBACK_NOTE, explain
from nas.config import load_config
from nas.run import Run
from nas.run_directory import short
from search_spaces.errors import UserError

Summary = dict[str, Any]


def run(arguments: argparse.Namespace) -> Summary:
    """Do all stages."""
    return _stage(arguments, "run_all")


def train(arguments: argparse.Namespace) -> Summary:
    """Train the supernet."""
    return _stage(arguments, "train")


def measure(arguments: argparse.Namespace) -> Summary:
    """Measure the latency table."""
    return _stage(arguments, "measure")


def search(arguments: argparse.Namespace) -> Summary:
    """Search for the front."""
    return _stage(arguments, "search")


def report(arguments: argparse.Namespace) -> Summary:
    """Write the report, also while another command works on the run."""
    return _stage(arguments, "report", exclusive=False)


def export(arguments: argparse.Namespace) -> Summary:
    """Export the front, or one subnet of it."""
    if arguments.best is None:
        if arguments.output is not None:
            raise UserError(
                f"--output {arguments.output} belongs to --best; the front goes to the run's "
                "exports folder"
            )
        return _stage(arguments, "export_front")
    output = Path(arguments.output or "best.onnx")
    if output.suffix != ".onnx":
        raise UserError(
            f"--output {output} does not end with .onnx; write {output.with_suffix('.onnx')}, say"
        )
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first")
    with _opened(arguments) as (run, pipeline):
        summary: Summary = pipeline.export_best(run, arguments.best, output)
    return summary


def _stage(arguments: argparse.Namespace, name: str, *, exclusive: bool = True) -> Summary:
    with _opened(arguments, exclusive=exclusive) as (run, pipeline):
        stage: Callable[[Run], Summary] = getattr(pipeline, name)
        return stage(run)


@contextmanager
def _opened(arguments: argparse.Namespace, *, exclusive: bool = True) -> Iterator[tuple[Run, Any]]:
    """Open the run, and keep how the command began and ended in its events."""
    config = load_config(arguments.config, arguments.overrides, arguments.device)
    with Run.open(config, arguments.device, exclusive=exclusive) as run:
        # After the checks: a mistake is answered before torch has been imported.
        from nas.cli import pipeline

        run.events.write(
            "command_started",
            command=arguments.command,
            device=run.device,
            overrides=arguments.overrides,
        )
        try:
            yield run, pipeline
        except BaseException as error:
            _record(run, arguments.command, error)
            raise
        run.events.write("command_ended", command=arguments.command)


def _record(run: Run, command: str, error: BaseException) -> None:
    """Keep the end of a failed command, with the traceback of a bug."""
    failure = explain(error)
    fields: dict[str, Any] = {"command": command, "error": f"{type(error).__name__}: {error}"}
    if failure is None:
        fields["traceback"] = "".join(traceback.format_exception(error))
        error.add_note(f"{TRACEBACK_NOTE}{short(run.directory.events)}")
    try:
        run.events.write("command_failed", **fields)
    except (UserError, OSError):
        # On a full disk the reason of the failure is what counts, not that it cannot be logged.
        return
