"""Files that are there whole or not at all: write beside, fsync, rename, fsync the directory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}


def storage_error(error: OSError, path: Path | str | None = None) -> UserError | None:
    """Say in one line what the file system refused, or return None where it is not the user's.

    Args:
        error: What a read or a write raised.
        path: The file; by default the one that the error names.

    Returns:
        An error to raise instead, or None when `error` is likely a bug.
    """
    name = path if path is not None else error.filename
    where = f"cannot write {name}" if name is not None else "cannot write"
    if error.errno in _NO_ROOM:
        reason = os.strerror(error.errno or 0).lower()
        return UserError(
            f"{where}: {reason}; nothing finished is lost: free some room and run the same "
            "command again"
        )
    if error.errno in _NO_RIGHT:
        reason = os.strerror(error.errno or 0).lower()
        return UserError(f"{where}: {reason}; name another place with output=DIRECTORY")
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place when the block ends well.

    The old file stays as it was until the new one is on the disk whole.

    Args:
        path: The file to replace; its directory is made when missing.

    Yields:
        The temporary file, for any writer that wants a path (ONNX, safetensors).

    Raises:
        UserError: The disk is full, or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
            _fsync_directory(path.parent)
        except OSError as error:
            raise storage_error(error, path) or error from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically.

    Raises:
        UserError: The disk is full, or the directory cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


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
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = f"not valid JSON ({error})".replace("\n", " ")
        raise UserError(f"{path} is {reason}; move it away and run its stage again") from None
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; move it away and run its stage again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; move it away and run its stage again")
    return value


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


def _fsync_directory(directory: Path) -> None:
    """Make a rename last: until the directory is on the disk, a power cut may undo it."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
