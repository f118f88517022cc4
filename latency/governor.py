"""The frequency governor of a session's CPUs: set for the session, put back after it.

Part of the agent: standard library and Python 3.9 only.

A process of its own puts it back, when the pipe to us closes: so a session that is killed, with
all that watches over it, leaves the device as it was too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CPUS = Path("/sys/devices/system/cpu")

_KEEPER = """\
import json, sys
sys.stdin.read()
for path, governor in json.loads(sys.argv[1]).items():
    try:
        with open(path, "w") as file:
            file.write(governor)
    except OSError:
        pass
"""


def settable(cpus: Sequence[int]) -> list[str]:
    """The governors that this process may set on all of these CPUs; none where it may not."""
    files = _files(cpus)
    if not files or not all(os.access(file, os.W_OK) for file in files):
        return []
    offers = [_read(file.with_name("scaling_available_governors")).split() for file in files]
    return sorted(set(offers[0]).intersection(*offers))


@contextmanager
def held(wanted: str, cpus: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Run these CPUs under a governor, if that is permitted; afterwards under theirs again.

    Yields:
        `wanted`, `before`: the governors that there were, and `problem`: why it could not be set
        (null: it is set).
    """
    before = {str(file): _read(file) for file in _files(cpus)}
    others = {file: governor for file, governor in before.items() if governor != wanted}
    record = {"wanted": wanted, "before": sorted(set(before.values())), "problem": None}
    if not before:
        record["problem"] = "no frequency governor here"
    elif others and wanted not in settable(cpus):
        record["problem"] = "not permitted, or not offered"
    if record["problem"] or not others:
        yield record
        return
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-c", _KEEPER, json.dumps(others)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        try:
            for file in others:
                Path(file).write_text(wanted)
        except OSError as error:
            record["problem"] = str(error.strerror)
        yield record
    finally:
        keeper.communicate()


def _files(cpus: Sequence[int]) -> list[Path]:
    files = [CPUS / f"cpu{cpu}/cpufreq/scaling_governor" for cpu in cpus]
    return [file for file in files if file.exists()]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
