"""The text and JSON files of a run, whole or not at all (`latency.files`)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from latency.files import write_bytes
from search_spaces.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with the line ends that it has.

    Raises:
        UserError: The disk is full, or the directory cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write `value` to `path` atomically, as JSON; numpy numbers and arrays are taken as well.

    Raises:
        UserError: The disk is full, or the directory cannot be written.
        ValueError: A number is not finite, which JSON cannot say.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that a stage wrote.

    Raises:
        UserError: The file is missing, or holds something else than one JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it") from None
    except (ValueError, RecursionError) as error:
        reason = f"not valid JSON ({error})".replace("\n", " ")
        raise UserError(f"{path} is {reason}; move it away and run its stage again") from None
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; move it away and run its stage again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; move it away and run its stage again")
    return value


def _refuse_constant(constant: str) -> NoReturn:
    """JSON has no NaN and no infinity, though Python reads them: no stage writes any.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{constant} is no number")


def remove_leftovers(directory: Path) -> None:
    """Delete the temporary files of writers that were killed; those of living ones stay."""
    for temporary in directory.glob(".*.tmp"):
        owner = temporary.name.removesuffix(".tmp").rpartition(".")[2]
        if owner.isdecimal() and not _is_alive(int(owner)):
            temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, and immutable mappings, into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
