"""Whether a checkpoint is of the training that is to go on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError


def check_identity(path: Path, saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose settings differ.

    Args:
        path: The checkpoint, for the message.
        saved: What it was written with, JSON values.
        ours: What the training has now, JSON values.

    Raises:
        UserError: Up to three settings that differ, and what to do.
    """
    differences = _differences(saved, json.loads(json.dumps(ours)))
    if differences:
        raise UserError(
            f"{path} is of another training: {'; '.join(differences[:3])}. Restore the setting to "
            "go on with it, or delete the file to start again"
        )


def _differences(saved: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`name was x, is y` for every JSON value that differs."""
    found = []
    for key in sorted(saved.keys() | ours.keys()):
        old, new = saved.get(key), ours.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} was {json.dumps(old)}, is {json.dumps(new)}")
    return found
