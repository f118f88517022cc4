"""A table measured twice on one device: undisturbed, and with a share of its sessions killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results import table
from latency.database import connect
from latency.protocol import PROTOCOL_VERSION
from latency.store import LatencyStore
from latency.timing import TimingConfig
from tests.latency.remote_device import Device

Row = tuple[str, list[float]]


@contextmanager
def some_killed(device: Device, share: float, seed: int) -> Iterator[Counter[str]]:
    """Kill a share of the sessions, each at a random moment; counts both kinds."""
    rng, counts, done = random.Random(seed), Counter[str](), threading.Event()

    def watch() -> None:
        seen: set[int] = set()
        while not done.wait(0.05):
            for pid in set(device.processes("session")) - seen:
                seen.add(pid)
                killed = False
                if counts["killed"] < share * (counts.total() + 1):
                    done.wait(rng.uniform(0, 2))
                    if pid in device.processes("session"):
                        os.kill(pid, signal.SIGKILL)
                        killed = True
                counts["killed" if killed else "left alone"] += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts
    finally:
        done.set()
        watcher.join()


def small_table(folder: Path, device: Device, lease: str) -> list[Row]:
    """A table of a tiny space, measured on the device.

    Returns:
        Block, and lower end, latency and upper end in units of the anchor's: two stores have two
        baselines of it.
    """
    from latency.graphs import GraphLibrary  # with torch, which the measuring process spares
    from latency.table_measurement import measure_table
    from search_spaces import VisionTransformerSpace, Workload

    space = VisionTransformerSpace(
        image_size=8,
        patch_size=4,
        channels=1,
        num_classes=10,
        head_dim=8,
        embed=[32, 48],
        depth=[1, 2],
        heads=[1, 2],
        ffn=[32, 64],
    )
    folder.mkdir(parents=True)
    with closing(connect(folder / "run.db")) as connection, closing(device.backend()) as backend:
        store = LatencyStore(connection)
        measured, _ = measure_table(
            space,
            {"latency": Workload()},
            backend=backend,
            timing=replace(TimingConfig.quick(), min_sessions=6, max_sessions=12),
            store=store,
            library=GraphLibrary(),
            folder=folder.parent / "chains",
            lease=lease,
        )
        baseline = store.baseline(store.add_device(backend.fingerprint()), PROTOCOL_VERSION)
        assert baseline is not None
        anchor_ms = baseline.anchor_ns / 1e6
    return [
        (str(row.block), [ms / anchor_ms for ms in (row.low_ms, row.latency_ms, row.high_ms)])
        for row in measured.rows
    ]


def compare_tables(folder: Path, device: Device, *, share: float, seed: int) -> dict[str, Any]:
    """The rows of an undisturbed table and of one with killed sessions."""
    lease = f"faults-{device.proxy.port}"
    calm = small_table(folder / "calm", device, lease)
    with some_killed(device, share, seed) as counts:
        flaky = small_table(folder / "flaky", device, lease)
    rows = [
        {
            "block": block,
            "calm": one,
            "flaky": two,
            "agree": one[0] <= two[2] and two[0] <= one[2],
        }
        for (block, one), (_, two) in zip(calm, flaky, strict=True)
    ]
    return {"sessions": dict(counts), "rows": rows}


def show(found: dict[str, Any]) -> str:
    """The rows side by side."""
    cells = [
        [
            row["block"],
            *(_interval(row[of]) for of in ("calm", "flaky")),
            str(row["agree"]),
        ]
        for row in found["rows"]
    ]
    return "\n".join(
        [
            f"sessions {found['sessions']}; latencies in units of the anchor's",
            table(["block", "undisturbed", "with losses", "agree"], cells),
        ]
    )


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[1]:.4f} [{ends[0]:.4f}, {ends[2]:.4f}]"
