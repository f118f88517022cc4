"""Which run directories lie below a folder, and what of each is read."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from search_spaces.errors import UserError

MARKS = ("environment.json", "events.jsonl", "front.json", "search.json", "training.jsonl")
"""Beside `config.yaml`, one of these makes a folder a run directory."""
DEPTH = 4
"""How far below a folder runs are looked for."""
PER_DEVICE = ("table", "search", "search-unfinished", "front")
SHARED = (
    *("config.yaml", "environment.json", "splits.json", "supernet.json", "training.jsonl"),
    *("devices.json", "events.jsonl"),
)
Facts = tuple[int, int, int]
"""What changes when a file does: inode, size, time of change in ns."""
_SUFFIX = re.compile(rf"(?:{'|'.join(PER_DEVICE)})\.([A-Za-z0-9_-]+)\.json")


def find_runs(folder: Path) -> Iterator[Path]:
    """Run directories below a folder, or the folder itself, in order.

    Symbolic links are not followed, nor what is hidden, nor what lies in a run.
    """
    yield from _below(folder, DEPTH)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:  # it is not there yet, or nobody may look into it
        return
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    names = {entry.name for entry in entries} - {entry.name for entry in folders}
    if "config.yaml" in names and names.intersection(MARKS):
        yield folder
        return
    for entry in folders if depth else ():
        if not entry.name.startswith("."):
            yield from _below(Path(entry.path), depth - 1)


def stage_files(directory: Path) -> dict[str, Facts]:
    """Stage files by name.

    Raises:
        UserError: One is a symbolic link or no regular file: reading it might tell of files
            outside, or never end.
    """
    found = {}
    with os.scandir(directory) as entries:
        own = [entry for entry in entries if entry.name in SHARED or _is_of_device(entry.name)]
    for entry in own:
        facts = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(
                f"{entry.name} is no regular file, and the dashboard reads no links; put the file "
                "itself there"
            )
        found[entry.name] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def _is_of_device(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return suffix == "json" and (stem in PER_DEVICE or _SUFFIX.fullmatch(name) is not None)


def suffixes(files: Mapping[str, Facts]) -> list[str]:
    """Suffixes of the devices whose files are here: "" is the first one's, and always there."""
    found = {match[1] for name in files if (match := _SUFFIX.fullmatch(name))}
    return ["", *sorted(found)]
