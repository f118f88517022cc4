"""Which files of a run directory are handed out, and how they are opened."""

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from nas.run_directory import short
from reports.stages import FrontSubnet
from search_spaces.errors import UserError

_SERVED = re.compile(
    r"(?:front|search|table)(?:\.[\w-]+)?\.(?:json|csv)"
    r"|supernet\.json|splits\.json|environment\.json|config\.yaml|training\.jsonl"
    r"|exports/(?:[\w-]+/)?[\w-]+(?:\.[\w-]+)?\.(?:onnx|json|py|pt2|engine)",
    re.ASCII,
)
"""What a run leaves for people and devices; never weights, the database or a page."""


def open_served(directory: Path, name: str) -> BinaryIO:
    """Open a file of a run for reading.

    Args:
        directory: The run directory.
        name: The file's path from there.

    Raises:
        UserError: It is none of those that are handed out, is not there, or a part of its path is
            a symbolic link.
    """
    if not _SERVED.fullmatch(name):
        raise UserError(f"{name!r} is no file that the dashboard hands out; see docs/dashboard.md")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *parents, last = PurePosixPath(name).parts
        for parent in parents:
            below = os.open(parent, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        handle = os.open(last, flags, dir_fd=folder)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise UserError(f"{name} of {short(directory)} cannot be opened: {reason}") from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{name} of {short(directory)} is no regular file")
    return os.fdopen(handle, "rb")


def exported_files(directory: Path, subnet: FrontSubnet, script: str | None) -> list[str]:
    """Paths of what belongs to a subnet's export, from the run directory: the models first."""
    if subnet.export is None:
        return []
    folder = PurePosixPath(subnet.export).parent
    try:
        with os.scandir(directory / folder) as entries:
            names = sorted(entry.name for entry in entries)
    except (OSError, ValueError):
        return []
    own = [name for name in names if name.startswith(f"{subnet.name}.")]
    if not own:
        return []
    own.sort(key=lambda name: (name.endswith(".json"), name))
    common = [PurePosixPath(script).name] if script else []
    wanted = [*own, *(name for name in [*common, "tokenizer.json"] if name in names)]
    paths = [str(folder / name) for name in wanted]
    return [path for path in paths if _SERVED.fullmatch(path) and _is_plain(directory / path)]


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
