"""Other values in a commented configuration, whose comments stay."""

from __future__ import annotations

import re
from collections.abc import Mapping


def with_values(text: str, values: Mapping[str, str | tuple[str, str]]) -> str:
    """Replace values of a template.

    Args:
        text: The YAML, with sections at the margin and their keys two spaces in.
        values: By `section.key`, the YAML of a value, or that and another comment. A key that the
            template lacks is added at the end of its section.

    Returns:
        The YAML with these values.

    Raises:
        KeyError: The template has no such section.
    """
    lines, left, section = [], dict(values), ""
    for line in [*text.splitlines(), ""]:
        if re.match(r"[a-z_]+:", line) or not line.strip():
            mine = [key for key in left if section and key.startswith(f"{section}.")]
            lines += [_line(key, left.pop(key)) for key in mine]  # the section ends here
            section = line.partition(":")[0]
        found = re.match(r"  ([a-z_]+):", line)
        key = f"{section}.{found[1]}" if found else ""
        lines.append(_line(key, left.pop(key), line) if key in left else line)
    if left:
        raise KeyError(next(iter(left)))
    return "\n".join(lines)


def _line(key: str, value: str | tuple[str, str], old: str = "") -> str:
    """A key with its value, and its comment where the old line had it."""
    _, hash_, comment = old.partition("#")
    column = old.index("#") if hash_ else 29
    if isinstance(value, tuple):
        value, comment = value
    start = f"  {key.partition('.')[2]}: {value}"
    comment = comment.strip()
    return f"{start.ljust(column - 1)} # {comment}" if comment else start
