"""How far a run is on one device, from its files and events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nas.search.pareto import hypervolume
from reports.dashboard import store
from reports.sections import is_older, next_stage
from reports.stages import RunData, Search, TrainingStep

STAGES = {
    "train": "training",
    "measure": "measuring",
    "search": "searching",
    "export": "exporting",
}
"""Stage by command, in the order in which `nas run` does them."""
RECENT_LINES = 20
"""Lines of the training log that its speed is taken from."""
Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is on one device."""

    stage: str
    """`training`, `measuring`, `searching`, `exporting`; `done`, `unfinished`, `interrupted`,
    `failed`."""
    note: str = ""
    """A few words on it."""
    progress: float | None = None
    """Of the stage, in [0, 1]; None where the files do not tell."""
    ends_s: float | None = None
    """When the stage is expected to end, seconds since 1970."""


def status_of(
    directory: Path, device: str, data: RunData | None, events: Sequence[Event], *, at_work: bool
) -> Status:
    """The state of a run.

    Args:
        directory: The run directory.
        device: Whose state is asked for.
        data: What the stages have left for it; None if nothing yet.
        events: Of the run, oldest first.
        at_work: Whether a command works on the directory.
    """
    commands = _commands(events)
    own = [one for one in commands if one[0].get("device", device) == device]
    if own and at_work and own[-1] is commands[-1] and _end(own[-1]) is None:
        return _working(directory, data, own[-1])
    finished = data is not None and data.front.exported and not _is_old(data)
    if own:
        end = _end(own[-1])
        name = own[-1][0]["command"]
        error = str(end.get("error", "")) if end else ""
        if end is None or error.startswith("KeyboardInterrupt"):
            return Status(stage="interrupted", note=f"nas {name} goes on where it stopped")
        if end["event"] == "command_failed" and not (finished and name == "export"):
            return Status(stage="failed", note=f"nas {name}: {error.partition(': ')[2] or error}")
    if finished:
        return Status(stage="done")
    if data is None:
        return Status(stage="unfinished", note="nothing is there yet")
    if data.front.exported:
        return Status(stage="unfinished", note="searched anew: nas export comes next")
    return Status(stage="unfinished", note=next_stage(data))


def hypervolume_of(search: Search | None) -> float | None:
    """Share of the box of all values that the front dominates, as `nas search` prints it.

    The box is that of one search: figures of several cannot be compared.
    """
    if search is None or len(search.evaluated) < 2:
        return None
    rows = [point.values for point in search.evaluated]
    if any(value is None for row in rows for value in row):
        return None
    values = np.array(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        return None
    return hypervolume(values[search.front], ideal=values.min(axis=0), reference=values.max(axis=0))


def _commands(events: Sequence[Event]) -> list[list[Event]]:
    """Commands that work on a run, each from its start to its end; reports only look."""
    found: list[list[Event]] = []
    for event in events:
        kind, name = event.get("event"), event.get("command")
        if kind == "command_started" and name in ("run", *STAGES):
            found.append([event])
        elif found and (kind == "stage_started" or name == found[-1][0]["command"]):
            found[-1].append(event)
    return found


def _end(command: Sequence[Event]) -> Event | None:
    last = command[-1]
    return last if last.get("event") in ("command_ended", "command_failed") else None


def _is_old(data: RunData) -> bool:
    return data.search is not None and is_older(data.front, data.search)


def _working(directory: Path, data: RunData | None, command: Sequence[Event]) -> Status:
    stages = [one for one in command if one.get("event") == "stage_started"]
    name, since = str(command[0]["command"]), str((stages or command)[-1].get("time", ""))
    if stages:
        name = str(stages[-1].get("stage"))
    if name not in STAGES:
        name = _by_files(directory, data)  # of an earlier version, or before its first stage
    if name == "train":
        return _training(directory, data)
    if name == "measure":
        count = store.measured_sessions(directory, since)
        sessions = "" if not count else f"{count} session{'s' * (count > 1)}"
        return Status(stage="measuring", note=sessions)
    if name == "search":
        return _searching(directory, data, since)
    return _exporting(directory, data, since)


def _by_files(directory: Path, data: RunData | None) -> str:
    if not (directory / "supernet.json").exists():
        return "train"
    if data is not None and data.search is not None:
        return "export" if data.search.finished else "search"
    return "measure"


def _training(directory: Path, data: RunData | None) -> Status:
    settings = data.config.get("training") if data else None
    steps = data.training if data else ()
    if not isinstance(settings, dict) or not steps:
        return Status(stage="training")
    total = _whole(settings.get("steps")) + _whole(settings.get("policy_steps"))
    last = steps[-1].step
    if total < last:
        return Status(stage="training", note=f"step {last}")
    left_s = _left_s(steps[-RECENT_LINES:], total)
    at_s = _changed_s(directory / "training.jsonl")
    return Status(
        stage="training",
        note=f"step {last} of {total}",
        progress=last / total if total else None,
        ends_s=None if left_s is None or at_s is None else at_s + left_s,
    )


def _left_s(steps: Sequence[TrainingStep], total: int) -> float | None:
    first, last = steps[0], steps[-1]
    if first.elapsed_s is None or last.elapsed_s is None or last.step <= first.step:
        return None
    each = (last.elapsed_s - first.elapsed_s) / (last.step - first.step)
    return (total - last.step) * each if each >= 0 else None


def _searching(directory: Path, data: RunData | None, since: str) -> Status:
    search = data.search if data else None
    if search is None or search.finished or not search.budget:
        return Status(stage="searching")
    done = len(search.evaluated) - search.known
    speed = store.evaluations_per_s(directory, _seconds(since))
    written_s = max(
        (_changed_s(path) or 0 for path in directory.glob("search-unfinished*.json")), default=0
    )
    return Status(
        stage="searching",
        note=f"{done} of {search.budget} evaluations",
        progress=min(done / search.budget, 1.0),
        ends_s=written_s + max(search.budget - done, 0) / speed if speed else None,
    )


def _exporting(directory: Path, data: RunData | None, since: str) -> Status:
    selected = len(data.search.selected) if data and data.search else 0
    began_s = _seconds(since)
    written = [
        path
        for path in (directory / "exports").rglob("s[0-9]*.onnx")
        if (_changed_s(path) or 0) >= began_s
    ]
    if not selected or not written:
        return Status(stage="exporting")
    if len(written) >= selected:
        return Status(stage="exporting", note="measuring the front")
    share = len(written) / selected
    return Status(stage="exporting", note=f"{len(written)} of {selected} subnets", progress=share)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _changed_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _seconds(time: str) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0
