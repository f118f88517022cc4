"""Records of named columns as CSV or Parquet: what is text, a number or a JSON object in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from search_spaces.errors import UserError

LONGEST_FIELD = 1 << 28
"""Characters of one CSV field; the provenance of a row may be long."""


class Column(NamedTuple):
    """One column of a file."""

    kind: type
    """`int`, `float`, `str`, or `dict`: a JSON object, as text."""
    optional: bool = False
    """Whether a field may be empty."""


Columns = Mapping[str, Column]
Records = Sequence[Mapping[str, Any]]


class Format(NamedTuple):
    """How one kind of file is read and written."""

    read: Callable[[Path], tuple[list[str], Records]]
    """Names of the columns as they stand there, and the records."""
    write: Callable[[Path, Columns, Records], None]
    first: int
    """Number of the first record, as people count: after a header in CSV."""
    record: str
    """What people call a record."""


def format_of(path: Path) -> Format:
    """The format that a file's suffix names.

    Raises:
        UserError: It names none.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path} ends in neither {' nor '.join(FORMATS)}; name such a file")
    return FORMATS[path.suffix]


def _write_csv(path: Path, columns: Columns, records: Records) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        # repr: the shortest text that reads back as the same number
        writer.writerows(
            [repr(v) if isinstance(v, float) else v for v in (record[name] for name in columns)]
            for record in records
        )


def _read_csv(path: Path) -> tuple[list[str], Records]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; a .csv table is") from None
    previous = csv.field_size_limit(LONGEST_FIELD)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a whole CSV file ({error}); copy it again") from None
    finally:
        csv.field_size_limit(previous)
    if not lines:
        raise UserError(f"{path} is empty; export the table again")
    names, *rest = lines
    for number, values in enumerate(rest, start=2):
        if len(values) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(values)} fields under {len(names)} columns; "
                "nothing is imported"
            )
    return names, [dict(zip(names, values, strict=True)) for values in rest]


def _write_parquet(path: Path, columns: Columns, records: Records) -> None:
    arrow, parquet = _pyarrow()
    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string(), dict: arrow.string()}
    fields = [
        arrow.field(name, types[column.kind], nullable=column.optional)
        for name, column in columns.items()
    ]
    table = arrow.Table.from_pylist(list(records), arrow.schema(fields))
    parquet.write_table(table, path, compression="zstd")


def _read_parquet(path: Path) -> tuple[list[str], Records]:
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
        records: Records = table.to_pylist()
    except arrow.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is not a whole Parquet file ({reason}); copy it again") from None
    return list(table.column_names), records


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow, which is not installed; pip install 'elastic-nas[parquet]', "
            "or use a .csv file, which holds the same"
        ) from None
    return pyarrow, pyarrow.parquet


FORMATS: dict[str, Format] = {
    ".csv": Format(_read_csv, _write_csv, 2, "line"),
    ".parquet": Format(_read_parquet, _write_parquet, 1, "row"),
}
