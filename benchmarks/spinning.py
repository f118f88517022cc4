"""What threads that spin while they wait for each other give: one thread, all, all spinning.

    python -m benchmarks.spinning

Sessions of the anchor alone, of the three kinds in turn, every block timed once. Told for each: its
median latency, and how far the blocks' lower quartiles, of which a latency is made, deviate within
a session. Keep the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from benchmarks.results import number, percent, table, write_results
from latency.backend import Block
from latency.backends import open_backend
from latency.device_profile import DeviceProfile
from latency.devices import get_device
from latency.lease import device_lease
from latency.timing import TimingConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row per kind of session."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=5, help="of each kind; at least 1")
    parser.add_argument("--rounds", type=int, default=50, help="blocks of a session; at least 2")
    options = parser.parse_args(argv)
    if options.sessions < 1 or options.rounds < 2:
        parser.error(f"--sessions {options.sessions} --rounds {options.rounds}: too few to tell")
    cpu = get_device("cpu")
    kinds = {
        "1 thread": get_device("cpu-1t"),
        f"{cpu.threads}, not spinning": replace(cpu, spinning=False),
        f"{cpu.threads}, spinning": cpu,
    }
    timing = replace(TimingConfig.standard(), patience=0.0, rounds=options.rounds)
    found = blocks(kinds, options.sessions, timing)
    rows = {kind: summary(sessions) for kind, sessions in found.items()}
    cells = [
        [kind, f"{number(row['median_ms'])} ms", percent(row["deviation"])]
        for kind, row in rows.items()
    ]
    print(table(["threads", "anchor", "blocks deviate by"], cells))
    print(write_results("spinning", rows), file=sys.stderr)
    return 0


def blocks(
    kinds: dict[str, DeviceProfile], sessions: int, timing: TimingConfig
) -> dict[str, list[Sequence[Block]]]:
    """The anchor's blocks in each session, by kind."""
    found: dict[str, list[Sequence[Block]]] = {kind: [] for kind in kinds}
    with device_lease(get_device("cpu").lease), tempfile.TemporaryDirectory() as folder:
        for seed in range(sessions):
            for kind, profile in kinds.items():
                with closing(open_backend(profile)) as backend:
                    anchor = backend.anchor(Path(folder))
                    (samples,) = backend.run_session([anchor], timing.of_session(seed))
                found[kind].append(samples.blocks)
    return found


def summary(sessions: list[Sequence[Block]]) -> dict[str, Any]:
    """What the sessions of one kind have in common."""
    quartiles = [[block.low_quartile_ns for block in session] for session in sessions]
    return {
        "median_ms": median(block.median_ns for session in sessions for block in session) / 1e6,
        "deviation": fmean(stdev(session) / fmean(session) for session in quartiles),
    }


if __name__ == "__main__":
    sys.exit(main())
