"""Latency tables as files that can be shared: CSV, or Parquet with the extra `parquet`.

A line per measured block or whole subnet, with all that it belongs to and where it comes from; see
`docs/latency.md` for the columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from latency.backends import BACKENDS
from latency.device_profile import is_device_name
from latency.files import replacing
from latency.measurement import FAILED
from latency.resources import RESOURCES
from latency.table_formats import Column, format_of
from latency.table_store import SUBNET, StoredRow, TableIdentity
from search_spaces.blocks import PRECISION, Workload
from search_spaces.errors import UserError
from search_spaces.schemes import check_versioned

SCHEMA = 1
KINDS = ("fixed", "attention", "ffn", SUBNET)
STATUSES = ("ok", "unstable", *FAILED)
MOST = 2**31
"""No whole number in a table is as large as this."""
LARGEST = 1e15
"""No latency, energy or memory is: sums and squares of these stay finite."""

_WHAT = {
    int: f"a whole number below {MOST}",
    float: "a finite number",
    str: "a text",
    dict: "a JSON object",
}

Entry = tuple[TableIdentity, StoredRow]


COLUMNS: dict[str, Column] = {
    "schema": Column(int),
    "device": Column(str),
    "backend": Column(str),
    "precision": Column(str),
    "threads": Column(int),
    "mode": Column(str),
    "protocol": Column(int),
    "fingerprint": Column(dict),
    "network": Column(dict),
    "batch": Column(int),
    "sequence": Column(int, optional=True),
    "past": Column(int),
    "kind": Column(str),
    "widths": Column(dict),
    "latency_ms": Column(float),
    "low_ms": Column(float, optional=True),
    "high_ms": Column(float, optional=True),
    "energy_mj": Column(float, optional=True),
    "peak_memory_bytes": Column(float, optional=True),
    "sessions": Column(int),
    "status": Column(str),
    "provenance": Column(dict),
}


def write_table(path: Path, entries: Iterable[Entry]) -> int:
    """Write rows as a .csv or a .parquet file, whole or not at all; returns how many.

    Raises:
        UserError: Another suffix, pyarrow is missing for Parquet, or the disk is full.
    """
    write = format_of(path).write
    records = [_record(identity, row) for identity, row in entries]
    with replacing(path) as temporary:
        write(temporary, COLUMNS, records)
    return len(records)


def read_table(path: Path) -> list[Entry]:
    """Read what `write_table` wrote; every value is checked.

    Raises:
        UserError: The file is missing or damaged, of a later version, or has wrong columns or
            values; the message names the line, the column and the value.
    """
    form = format_of(path)
    try:
        names, records = form.read(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise UserError(f"cannot read {path}: {reason}; check the file and its rights") from None
    if not records:
        raise UserError(f"{path} holds no rows; export the table again")
    for record in records:
        _check_schema(path, record.get("schema", SCHEMA))
    _check_names(path, names)
    entries: dict[tuple[object, ...], Entry] = {}
    for number, record in enumerate(records, start=form.first):
        try:
            identity, row = _entry(record)
            if (identity.text(), *row.key) in entries:
                raise UserError(f"a second row for {row.kind} {dict(row.widths)}; remove one")
        except UserError as error:
            raise UserError(
                f"{path}, {form.record} {number}: {error}; nothing is imported"
            ) from None
        entries[identity.text(), *row.key] = (identity, row)
    return list(entries.values())


def _record(identity: TableIdentity, row: StoredRow) -> dict[str, Any]:
    """A row as values of the columns' types, JSON objects as text."""
    values = {
        "schema": SCHEMA,
        **vars(identity),
        "sequence": None,
        **row.workload.to_json(),
        **{name: value for name, value in vars(row).items() if name in COLUMNS},
    }
    return {
        name: json.dumps(dict(values[name]), ensure_ascii=False, separators=(",", ":"))
        if column.kind is dict
        else values[name]
        for name, column in COLUMNS.items()
    }


def _entry(record: Mapping[str, Any]) -> Entry:
    """The row that a record is.

    Raises:
        UserError: A value is wrong.
    """
    found = {name: _value(name, column, record[name]) for name, column in COLUMNS.items()}
    _check(found)
    identity = {f.name: found[f.name] for f in fields(TableIdentity)}
    row = {f.name: found[f.name] for f in fields(StoredRow) if f.name in found}
    workload = Workload(batch=found["batch"], sequence=found["sequence"], past=found["past"])
    return TableIdentity(**identity), StoredRow(**row, workload=workload, imported=True)


def _value(name: str, column: Column, value: Any) -> Any:
    """A value of the column's type, from CSV text or as Parquet holds it."""
    if value is None or value == "":
        if column.optional:
            return None
        raise UserError(f"{name} is empty")
    try:
        if column.kind is dict:
            parsed = json.loads(value, parse_constant=_refuse)
            if not isinstance(parsed, dict):
                raise ValueError
            return parsed
        if column.kind is float:
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        if column.kind is int:
            whole = int(value)
            if whole != float(value) or abs(whole) >= MOST:
                raise ValueError
            return whole
        if not isinstance(value, str):
            raise TypeError
        return value
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{name} {str(value)[:60]!r} is not {_WHAT[column.kind]}") from None


def _refuse(constant: str) -> None:
    """JSON has no NaN and no infinity, though Python reads them."""
    raise ValueError(constant)


def _check(found: Mapping[str, Any]) -> None:
    """Check what the types do not.

    Raises:
        UserError: The first value that is wrong.
    """
    for name, known in (
        ("backend", tuple(sorted(BACKENDS))),
        ("kind", KINDS),
        ("status", STATUSES),
        ("mode", ("quick", "standard")),
    ):
        if found[name] not in known:
            raise UserError(f"{name} {found[name]!r} is not one of {', '.join(known)}")
    offered = BACKENDS[found["backend"]].precisions
    if found["precision"] not in offered:
        raise UserError(
            f"precision {found['precision']!r} is not one of {', '.join(offered)}, which backend "
            f"{found['backend']} offers"
        )
    if not is_device_name(found["device"]):
        raise UserError(f"device {found['device']!r}: only letters, digits, - and _ are a name")
    for name in ("threads", "protocol"):
        if found[name] < 1:
            raise UserError(f"{name} {found[name]} is below 1")
    for name in ("latency_ms", "low_ms", "high_ms", *RESOURCES, "sessions"):
        if found[name] is not None and not 0 <= found[name] < LARGEST:
            raise UserError(f"{name} {found[name]} is not in 0..{LARGEST:g}")
    if found["kind"] == SUBNET and found["latency_ms"] == 0:
        raise UserError("latency_ms 0 of a whole subnet is not above 0")
    low, high = found["low_ms"], found["high_ms"]
    if low is not None and high is not None and not low <= found["latency_ms"] <= high:
        raise UserError(
            f"latency_ms {found['latency_ms']} is not between low_ms {low} and high_ms {high}; "
            "all three are milliseconds"
        )
    for name, value in found["widths"].items():
        if name.startswith(PRECISION):
            try:
                check_versioned(value)
            except UserError as error:
                raise UserError(f"widths: {name} {error}") from None
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"widths: {name} {value!r} is not a whole number of 1 or more")
    for name, value in found["fingerprint"].items():
        if not isinstance(value, str):
            raise UserError(f"fingerprint: {name} {value!r} is not a text")


def _check_schema(path: Path, found: object) -> None:
    if str(found) != str(SCHEMA):
        raise UserError(
            f"{path} has schema {str(found)[:20]}, this version reads {SCHEMA}; upgrade "
            "elastic-nas, or export it with this version"
        )


def _check_names(path: Path, names: Sequence[str]) -> None:
    for what, wrong in (
        ("lacks the column", [name for name in COLUMNS if name not in names]),
        ("has the unknown column", [name for name in names if name not in COLUMNS]),
        ("has twice the column", [name for name in names if names.count(name) > 1]),
    ):
        if wrong:
            raise UserError(
                f"{path} {what} {wrong[0]}; a table file has {', '.join(COLUMNS)}; "
                "nothing is imported"
            )
