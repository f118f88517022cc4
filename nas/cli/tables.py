"""`nas table`: latency tables to and from files, so that they can be shared."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from latency.database import connect
from latency.device_profile import is_device_name
from latency.devices import list_devices
from latency.protocol import PROTOCOL_VERSION
from latency.table_file import Entry, read_table, write_table
from latency.table_formats import format_of
from latency.table_store import TableIdentity, TableStore
from nas.config import load_config
from nas.lock import Lock
from nas.run_directory import RunDirectory, short
from search_spaces.errors import UserError


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Export the table that a device used last, or import one."""
    config = load_config(arguments.config, [])
    file = Path(arguments.file)
    if arguments.action == "export":
        directory = RunDirectory(config.output_path, arguments.device or config.device)
        return _export(directory, file)
    directory = RunDirectory(config.output_path, config.device)
    summary = _import(directory, file, arguments.device)
    return {**summary, "next": f"nas run {arguments.config} --device {summary['device']}"}


def _export(directory: RunDirectory, file: Path) -> dict[str, Any]:
    if not directory.database.exists():
        raise UserError(
            f"{short(directory.database)} does not exist, so there is no table to export; run "
            "nas measure first"
        )
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; make it first")
    with contextlib.closing(connect(directory.database)) as connection:
        store = TableStore(connection)
        tables = store.tables(directory.device)
        if not tables:
            known = store.devices()
            there = f"there are tables of {', '.join(known)}" if known else "there are none yet"
            raise UserError(
                f"{short(directory.database)} has no table of {directory.device}, {there}; name "
                "one with --device, or run nas measure"
            )
        identity, used_at = tables[0]
        # A quick table takes standard rows where there are any
        same = [one for one, _ in tables if replace(one, mode=identity.mode) == identity]
        entries = [(one, row) for one in same for row in store.rows(one)]
    rows = write_table(file, entries)
    return {"file": str(file), "device": identity.device, "rows": rows, "used": used_at}


def _import(directory: RunDirectory, file: Path, name: str | None) -> dict[str, Any]:
    entries = read_table(file)
    device = _device(file, entries, name)
    entries = [(replace(identity, device=device), row) for identity, row in entries]
    with contextlib.ExitStack() as stack:
        directory.make()
        stack.callback(Lock(directory.lock).release)
        connection = stack.enter_context(contextlib.closing(connect(directory.database)))
        new = TableStore(connection).add(entries)
    return {
        "device": device,
        "rows": len(entries),
        "new_rows": new,
        "has_profile": device in list_devices()[0],
    }


def _device(file: Path, entries: list[Entry], name: str | None) -> str:
    """The name under which a file's rows are stored.

    Raises:
        UserError: The rows are of several tables or another protocol, or the name is none.
    """
    protocols = {identity.protocol for identity, _ in entries} - {PROTOCOL_VERSION}
    if protocols:
        raise UserError(
            f"{file} was measured by protocol {min(protocols)}, this version has "
            f"{PROTOCOL_VERSION}, and their latencies are not comparable; measure again"
        )
    names = sorted({identity.device for identity, _ in entries})
    if name is None and len(names) > 1:
        raise UserError(
            f"{file} has rows of {', '.join(names)}; split it, or name one device with --device"
        )
    device = names[0] if name is None else name
    if not is_device_name(device):
        raise UserError(f"--device {device}: use letters, digits, - and _ only")
    _check_one_table(file, [replace(identity, device=device) for identity, _ in entries])
    return device


def _check_one_table(file: Path, identities: list[TableIdentity]) -> None:
    """A file is one table, as exports are: runs use one, and would lack the rows of another.

    Raises:
        UserError: Two rows differ in more than the mode.
    """
    first, form = identities[0], format_of(file)
    for number, identity in enumerate(identities, start=form.first):
        other = replace(identity, mode=first.mode)
        if other == first:
            continue
        what = "; ".join(first.changes(other)) or "its network is another"
        raise UserError(
            f"{file}, {form.record} {number} is of another table than {form.record} "
            f"{form.first} ({what}); split the file, and import each part under a name of its "
            "own (--device); nothing is imported"
        )
