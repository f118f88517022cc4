"""The settings of a checkpoint, each checked as it is read: what is not understood is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from search_spaces.errors import UserError


class Keys:
    """The keys of `config.json`.

    Args:
        values: What it holds.
        source: The file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], source: Path) -> None:
        self.values = values
        self.source = source

    def count(self, name: str, default: int | None = None) -> int:
        """A positive integer; `default` where the key is missing or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refused(name, "a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive, finite number; `default` where the key is missing or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if not is_number(value) or not value > 0:
            raise self.refused(name, "a positive number")
        return float(value)

    def expect(self, name: str, supported: Collection[object], default: object = None) -> None:
        """Refuse a value that the network here cannot have.

        Args:
            name: The key.
            supported: Values that do.
            default: What the library takes where the key is missing.

        Raises:
            UserError: It has another value.
        """
        value = self.values.get(name, default)
        if value not in supported:
            raise self.refused(name, " or ".join(json.dumps(choice) for choice in supported))

    def refused(self, name: str, supported: str) -> UserError:
        """The error that names a key, its value and what is supported instead."""
        value = json.dumps(self.values.get(name))
        if len(value) > 80:
            value = f"{value[:77]}..."
        return UserError(
            f"{self.source}: {name} is {value}, but only {supported} is supported; such a "
            "checkpoint cannot be the start of a supernet, take another"
        )


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a JSON file is a finite number; it has integers that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # False of NaN
