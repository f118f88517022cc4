"""Files that are there whole or not at all: write beside, fsync, rename, fsync the folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search_spaces.errors import UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP}


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
    reason = os.strerror(error.errno or 0).lower()
    if error.errno in _NO_ROOM:
        return UserError(
            f"{where}: {reason}; nothing finished is lost: free some room and run the same "
            "command again"
        )
    if error.errno in _NO_RIGHT:
        return UserError(
            f"{where}: {reason}; change its rights, or name another place with output=DIRECTORY"
        )
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{where}: {reason}; give a shorter one")
    dangling = error.errno == errno.ENOENT and path is not None and Path(path).is_symlink()
    if name is not None and (dangling or error.errno in _IN_THE_WAY):
        what = "a link that leads nowhere" if dangling else reason
        return UserError(
            f"cannot use {name}: {what}; move away what is there, or name another place with "
            "output=DIRECTORY"
        )
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place when the block ends well.

    The old file stays as it was until the new one is on the disk whole.

    Args:
        path: The file to replace; its folder is made when missing.

    Yields:
        The temporary file, for any writer that wants a path (ONNX, safetensors).

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) or error from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _fsync_folder(folder: Path) -> None:
    """Make a rename last: until the folder is on the disk, a power cut may undo it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
