"""`nas compare`: the fronts of several runs or devices side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nas.cli.streams import print_text
from nas.run_directory import short
from search_spaces.errors import UserError


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the page, and print the tables.

    Raises:
        UserError: Nothing can be compared, or the page cannot be written.
    """
    import reports

    output = Path(arguments.output)
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file, as {output / 'compare.html'}")
    found = reports.compare([Path(run) for run in arguments.runs])
    reports.write_comparison(found, output)
    written = {"page": short(output.absolute())}
    if arguments.json:
        return {**reports.comparison_json(found), **written}
    fronts, subnets = reports.comparison_tables(found)
    _print(*fronts)
    if found.subnets:
        print_text("The same subnet in several runs; ~ marks latencies that are predicted:")
        _print(*subnets)
    for note in found.notes:
        print_text(note)
    return written


def _print(columns: list[Any], rows: list[list[Any]]) -> None:
    """A table on stdout, as wide as it needs to be where that is no terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from nas.progress import open_console

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            Text(column.label), justify="right" if column.numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell.text) for cell in row))
    console = open_console()
    with console.capture() as text:
        console.print(table)
    print_text(text.get().rstrip("\n"))
