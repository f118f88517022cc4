"""What stored sessions are worth, by how calm their anchor was and by how much it drifted.

    python -m benchmarks.drifted_sessions RUN_FOLDER ...

Measures nothing. For each session of a run directory: log(candidate / anchor) of its models, less
the median of the same model's *other* sessions that were calm and did not drift. A session's level
is its anchor over the device's baseline; it drifted where the anchor before and after it is
further apart than the timing allows. Told for each kind: sessions, and the median and the 90 %
quantile of what a model deviates by. Sessions that the device held back are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import FOLDER, percent, table
from latency.calm import LIMIT, SAME_STATE
from latency.database import connect
from latency.protocol import PROTOCOL_VERSION
from latency.store import LatencyStore
from search_spaces import UserError

LEVELS = ((LIMIT, "calm"), (SAME_STATE, "a little slower"), (np.inf, "slow"))
LEAST_OTHERS = 2
"""Calm sessions without drift that a model needs beside the one that is judged."""

Kind = tuple[str, bool]
"""Level; whether it drifted."""
Deviations = dict[Kind, dict[str, list[float]]]
"""Of the models of each session, by kind and session."""


def deviations(store: LatencyStore, device: str, mode: str) -> Deviations:
    """What the models of each session deviate by from their calm sessions."""
    baseline = store.current_baseline(device, PROTOCOL_VERSION)
    if baseline is None:
        return {}
    kinds = {
        row["session_id"]: kind
        for row in store.sessions(device)
        if row["mode"] == mode and (kind := _kind(row, baseline.anchor_ns))
    }
    found: Deviations = {}
    for entries in store.history(device, PROTOCOL_VERSION, mode).values():
        logs = {
            entry.session_id: float(np.log(entry.ratio))
            for entry in entries
            if entry.ratio and entry.session_id in kinds
        }
        for session, value in logs.items():
            others = [
                log
                for other, log in logs.items()
                if other != session and kinds[other] == ("calm", False)
            ]
            if len(others) >= LEAST_OTHERS and any(logs.values()):  # the anchor's are all 0
                own = found.setdefault(kinds[session], {}).setdefault(session, [])
                own.append(value - float(np.median(others)))
    return found


def _kind(row: Mapping[str, Any], baseline_ns: float) -> Kind | None:
    """Of a stored session; None for one without latencies, or held back."""
    if row["anchor_ns"] is None or row["facts"].get("throttled"):
        return None
    level = next(name for most, name in LEVELS if row["anchor_ns"] <= most * baseline_ns)
    return level, abs(row["drift"]) > row["timing"]["drift_limit"]


def show(found: Deviations) -> str:
    """A row for each kind of session."""
    rows = []
    for kind in ((name, drifted) for _, name in LEVELS for drifted in (False, True)):
        sessions = found.get(kind, {})
        sizes = np.abs([value for own in sessions.values() for value in own])
        spread = [percent(float(np.quantile(sizes, q))) for q in (0.5, 0.9)] if len(sizes) else []
        rows.append([kind[0], "drifted" if kind[1] else "", str(len(sessions)), *spread])
    header = ["anchor", "", "sessions", "median deviation", "nine of ten below"]
    return table(header, [row + [""] * (len(header) - len(row)) for row in rows])


def _folders(given: Iterable[str]) -> list[Path]:
    folders = [Path(one) for one in given] or sorted((FOLDER / "latency").glob("*/"))
    for folder in folders:
        if not (folder / "run.db").is_file():
            raise UserError(f"{folder} is no run directory: it has no run.db; name one that has")
    return folders


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each device of each run directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", help="default: those of benchmarks.latency")
    parser.add_argument("--mode", choices=["standard", "quick"], default="standard")
    options = parser.parse_args(argv)
    try:
        for folder in _folders(options.folders):
            with closing(connect(folder / "run.db")) as connection:
                store = LatencyStore(connection)
                devices = connection.execute("SELECT fingerprint FROM latency_devices").fetchall()
                for (device,) in devices:
                    if found := deviations(store, device, options.mode):
                        print(f"{folder}:\n{show(found)}\n")
    except UserError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
