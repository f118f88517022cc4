"""All runs below some folders: found anew at every look, read again only when files changed."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.events import read_lines
from nas.run_directory import short
from reports.compare_page import comparison_json, corner
from reports.comparison import compare_loaded
from reports.dashboard.discovery import PER_DEVICE, Facts, find_runs, stage_files, suffixes
from reports.dashboard.owner import is_at_work
from reports.dashboard.points import chooser
from reports.dashboard.status import Event, hypervolume_of, status_of
from reports.data import load_run
from reports.page import render
from reports.stages import RunData
from search_spaces.errors import UserError

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run on one device."""

    id: str
    directory: Path
    device: str
    version: str
    """Another one when anything in the files of the run has changed."""
    data: RunData | None = None
    """None where no stage has left anything yet, or a file is damaged."""
    events: Sequence[Event] = ()
    own_device: str | None = None
    """The device, if commands have to name it."""
    error: str = ""
    """What is damaged, in a line."""
    changed_s: float = 0.0
    hypervolume: float | None = None


class Catalogue:
    """Reads runs for the dashboard; may be used by several threads.

    Args:
        folders: Where runs are looked for, or runs themselves.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[str, list[Listed]]] = {}
        self._choosers: dict[str, tuple[str, Json]] = {}
        self._pages: dict[str, tuple[str, str]] = {}

    def runs(self) -> Json:
        """`GET /api/runs`."""
        return {
            "schema": 1,
            "folders": [short(folder) for folder in self.folders],
            "runs": [_summary(one) for one in self._look()],
        }

    def run(self, id: str) -> Json:
        """`GET /api/runs/ID`.

        Raises:
            KeyError: There is no such run.
            UserError: It is damaged.
        """
        one = self._find(id)
        head = {"schema": 1, "id": id, "version": one.version, "label": _label(one)}
        if one.data is None:
            return {**head, "axes": [], "points": [], "notices": [], "quality": None}
        known = self._choosers.get(id)
        if known is None or known[0] != one.version:
            found = chooser(one.directory, one.data, short(one.directory), one.own_device)
            known = self._choosers[id] = (one.version, found)
        return {**head, **known[1]}

    def compare(self, ids: Sequence[str]) -> Json:
        """`GET /api/compare?run=ID&run=ID`: the same as `nas compare --json`.

        Raises:
            KeyError: There is no such run.
            UserError: They cannot be compared.
        """
        found = [self._find(id) for id in dict.fromkeys(ids)]
        ready = [one for one in found if one.data is not None]
        if len(ready) < 2:
            raise UserError("name two runs at least that have files of a stage: ?run=ID&run=ID")
        loaded = [one.data for one in ready if one.data is not None]
        comparison = compare_loaded([_label(one) for one in ready], loaded)
        fronts = comparison_json(comparison)
        for front, one in zip(fronts["fronts"], ready, strict=True):
            front["id"] = one.id
        return {"schema": 1, **fronts, "corner_text": corner(comparison)}

    def report(self, id: str) -> str:
        """The report of a run as HTML, made from its files: no page on the disk is handed out.

        Raises:
            KeyError: There is no such run.
            UserError: It is damaged, or nothing is there yet.
        """
        one = self._find(id)
        if one.data is None:
            raise UserError(f"{short(one.directory)}: there is nothing to report on yet")
        known = self._pages.get(id)
        if known is None or known[0] != one.version:
            known = (one.version, render(one.data))
            self._pages = {id: known}  # the last one only: each is 5 MB
        return known[1]

    def directory(self, id: str) -> Path:
        """Where a run lies.

        Raises:
            KeyError: There is no such run.
            UserError: It is damaged.
        """
        return self._find(id).directory

    def _find(self, id: str) -> Listed:
        one = next((one for one in self._look() if one.id == id), None)
        if one is None:
            raise KeyError(id)
        if one.error:
            raise UserError(one.error)
        return one

    def _look(self) -> list[Listed]:
        with self._lock:
            found: dict[Path, tuple[str, list[Listed]]] = {}
            for folder in self.folders:
                for directory in find_runs(folder):
                    found.setdefault(directory, self._read(directory))
            self._known = found
            return [one for _, listed in found.values() for one in listed]

    def _read(self, directory: Path) -> tuple[str, list[Listed]]:
        try:
            files = stage_files(directory)
        except (OSError, UserError) as error:
            broken = f"{short(directory)}: {error}"
            return "", [_damaged(directory, "", "", broken)]
        version = _digest([sorted(files.items()), is_at_work(directory)])
        known = self._known.get(directory)
        if known is not None and known[0] == version:
            return known
        return version, _list(directory, files, version)


def _list(directory: Path, files: Mapping[str, Facts], version: str) -> list[Listed]:
    """A run's devices, those that a command was just started for among them."""
    try:
        events = read_lines(directory / "events.jsonl")
        listed, first = [], None
        for suffix in suffixes(files):
            one = _load(directory, suffix, files, version, events)
            first = one.device if suffix == "" else first
            listed.append(one)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return [_damaged(directory, "", version, f"{short(directory)} cannot be read: {reason}")]
    there = {one.device for one in listed}
    for device in _started(events)[:1]:
        if device not in there and not listed[0].error:
            listed.append(_entry(directory, device, files, version, None, events))
    return listed


def _started(events: Sequence[Event]) -> list[str]:
    """Devices of the commands that work on a run, the last first."""
    return [
        str(event["device"])
        for event in reversed(events)
        if event.get("event") == "command_started"
        and event.get("command") != "report"
        and event.get("device")
    ]


def _load(
    directory: Path,
    suffix: str,
    files: Mapping[str, Facts],
    version: str,
    events: Sequence[Event],
) -> Listed:
    tail = f".{suffix}.json" if suffix else ".json"
    there = any(f"{name}{tail}" in files for name in PER_DEVICE)
    try:
        first = _first_device(directory, files)
        data = None
        if there or (suffix == "" and "training.jsonl" in files):
            data = load_run(directory, suffix)
    except UserError as error:
        return _damaged(directory, suffix, version, str(error))
    device = suffix or first or (data.front.device.name if data else "")
    device = device or next(iter(_started(events)), "")
    return _entry(directory, device, files, version, data, events)


def _entry(
    directory: Path,
    device: str,
    files: Mapping[str, Facts],
    version: str,
    data: RunData | None,
    events: Sequence[Event],
) -> Listed:
    own = data.config.get("device") if data else None
    return Listed(
        id=f"{short(directory)}@{device}",
        directory=directory,
        device=device,
        version=version,
        data=data,
        events=events,
        own_device=None if own == device else device,
        changed_s=max((facts[2] for facts in files.values()), default=0) / 1e9,
        hypervolume=hypervolume_of(data.search) if data else None,
    )


def _first_device(directory: Path, files: Mapping[str, Facts]) -> str | None:
    """The device whose files carry no name; None where the run does not say."""
    if "devices.json" not in files:
        return None
    try:
        first = json.loads((directory / "devices.json").read_text(encoding="utf-8")).get("first")
    except (ValueError, AttributeError, RecursionError):
        first = None
    if not isinstance(first, str):
        raise UserError(
            f"{short(directory / 'devices.json')} does not name the first device; restore it"
        )
    return first


def _damaged(directory: Path, device: str, version: str, error: str) -> Listed:
    return Listed(
        id=f"{short(directory)}@{device}",
        directory=directory,
        device=device,
        version=version or _digest(error),
        error=" ".join(error.split()),
    )


def _summary(one: Listed) -> Json:
    try:
        return _told(one)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # One run that holds what nobody thought of must not hide the others.
        broken = f"{short(one.directory)}: {type(error).__name__}: {error}"
        return _told(_damaged(one.directory, one.device, one.version, broken))


def _told(one: Listed) -> Json:
    found: Json = {
        "id": one.id,
        "run": short(one.directory),
        "device": one.device,
        "version": one.version,
        "changed_s": one.changed_s,
    }
    if one.error:
        return {**found, "name": one.directory.name, "stage": "damaged", "note": one.error}
    data = one.data
    task = data.config.get("task") if data else None
    task = task if isinstance(task, dict) else {}
    status = status_of(
        one.directory, one.device, data, one.events, at_work=is_at_work(one.directory)
    )
    front = None
    if data is not None:
        exported = len(data.front.subnets) if data.front.exported else None
        front = exported if exported is not None else data.search and len(data.search.front)
    return {
        **found,
        "name": str((data.config.get("name") if data else None) or one.directory.name),
        "task": str(task.get("kind", "")).replace("-", " "),
        "data": str(task.get("data", "")),
        "stage": status.stage,
        "note": status.note,
        "progress": status.progress,
        "ends_s": status.ends_s and round(status.ends_s),
        "hypervolume": one.hypervolume,
        "front": front,
        "evaluated": len(data.search.evaluated) if data and data.search else None,
        "objectives": list(data.front.objectives) if data else [],
        "mode": data.table.mode if data and data.table else None,
        "has_report": data is not None,
    }


def _label(one: Listed) -> str:
    return f"{short(one.directory)} on {one.device}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
