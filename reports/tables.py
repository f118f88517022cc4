"""Tables of a report, as values that the template only lays out."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    sort: float | None = None
    """What a numeric column is ordered by; None comes last."""
    tone: str = ""
    """"bad" for a value that wants attention, "code" for a path."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Head of a table's column."""

    label: str
    numeric: bool = True
