"""A latency table: what each block of a search space costs on a device, measured there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latency.artifact import Artifact
from latency.backend import DeviceBackend
from latency.chains import chain
from latency.export import build_key, export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.measurement import Measurement
from latency.protocol import Progress, measure
from latency.statistics import mean_interval
from latency.store import LatencyStore
from latency.timing import TimingConfig
from search_spaces.blocks import Block, Workload
from search_spaces.errors import UserError
from search_spaces.transformer import TransformerSpace

FEW, MANY = 2, 8
"""Copies of a block in the two chains whose difference is its cost."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """What one block costs in one call."""

    block: Block
    workload: str
    """Name of the workload."""
    latency_ms: float
    low_ms: float
    """Lower end of the 95 % interval over sessions."""
    high_ms: float
    """Upper end of the 95 % interval over sessions."""
    sessions: int
    status: str
    """`ok` or `unstable`."""

    def to_json(self) -> dict[str, object]:
        """The row as it stands in `table.json`."""
        return {
            "workload": self.workload,
            "kind": self.block.kind,
            "widths": dict(self.block.widths),
            "latency_ms": self.latency_ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "sessions": self.sessions,
            "status": self.status,
        }


class LatencyTable:
    """Rows by workload and block.

    Args:
        rows: One per block and workload.

    Raises:
        UserError: Two rows for the same block and workload.
    """

    def __init__(self, rows: Iterable[TableRow]) -> None:
        self.rows = tuple(rows)
        self._latency_ms: dict[tuple[str, Block], float] = {}
        for row in self.rows:
            if (row.workload, row.block) in self._latency_ms:
                raise UserError(f"the latency table has two rows for {row.block}; measure again")
            self._latency_ms[row.workload, row.block] = row.latency_ms

    def latency_ms(self, workload: str, block: Block) -> float:
        """Latency of one block in ms.

        Raises:
            UserError: The block was not measured: the table is of another space.
        """
        try:
            return self._latency_ms[workload, block]
        except KeyError:
            raise UserError(
                f"the latency table has no row for {block} with workload {workload!r}: it is of "
                "another space; run `nas measure` again"
            ) from None


def measure_table(
    space: TransformerSpace,
    workloads: Mapping[str, Workload],
    *,
    backend: DeviceBackend,
    timing: TimingConfig,
    store: LatencyStore,
    library: GraphLibrary,
    folder: Path,
    progress: Progress | None = None,
    lease: str = "host",
) -> LatencyTable:
    """Measure every distinct block of a space.

    A block is timed in chains of 2 and of 8 like it, in the same sessions, and costs a sixth of
    the difference; the network without layers is the fixed row of its embedding width. What the
    store knows of this device is not measured again.

    Args:
        space: Which blocks there are.
        workloads: What a call is given, by name.
        backend: The device.
        timing: The measuring protocol's numbers.
        store: Where sessions are kept.
        library: Exported parts.
        folder: Where the chains' files are kept.
        progress: Told (artifacts finished, of how many, what happens), per workload.
        lease: The physical device; one measurement at a time on each.

    Raises:
        UserError: The device cannot run a block, or was lost.
    """
    rows = []
    for name, workload in workloads.items():
        space.check_workload(workload)
        blocks = space.all_blocks()
        groups = [_chains(space, block, workload, backend, library, folder) for block in blocks]
        results = measure(
            groups, backend=backend, timing=timing, store=store, progress=progress, lease=lease
        )
        for block, group in zip(blocks, groups, strict=True):
            found = [results[artifact.sha256] for artifact in group]
            rows.append(_row(block, name, found))
    return LatencyTable(rows)


def _chains(
    space: TransformerSpace,
    block: Block,
    workload: Workload,
    backend: DeviceBackend,
    library: GraphLibrary,
    folder: Path,
) -> list[Artifact]:
    """The files whose latencies give a block's row."""
    artifacts = []
    for copies in (0,) if block.kind == "fixed" else (FEW, MANY):
        facts: dict[str, object] = {
            "block": str(block),
            "copies": copies,
            "workload": str(workload),
        }
        shape = space.to_json() | {"embed": [], "depth": [], "heads": [], "ffn": []}
        shape.pop("drop_order")
        text = json.dumps([facts, shape, build_key(backend)], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:20]
        path = folder / f"{name}{backend.suffix}"
        artifact = known_artifact(path, backend=backend, provenance=facts)
        if artifact is None:
            with torch.random.fork_rng(devices=[]):
                # The same weights every time: an interrupted run finds its sessions again.
                torch.manual_seed(0)
                network, feeds = chain(space, block, copies, workload)
            artifact = export_network(
                network, feeds, path, backend=backend, library=library, provenance=facts
            )
        artifacts.append(artifact)
    return artifacts


def _row(block: Block, workload: str, found: Sequence[Measurement]) -> TableRow:
    """The fixed part is measured as it is, any other block as a difference per session."""
    few, many = found[0].session_ratios, found[-1].session_ratios
    if len(found) == 1:
        costs = list(few.values())
    else:
        costs = [(many[i] - few[i]) / (MANY - FEW) for i in few if i in many]
    if len(costs) < 2 or found[0].baseline_ns is None:
        # A single session says nothing of its error.
        worst = min(found, key=lambda measurement: measurement.sessions)
        raise UserError(
            f"{block} could not be measured: {worst.status}, {worst.message}; "
            "run `nas doctor` for this device, then the same command again"
        )
    scale_ms = found[0].baseline_ns / 1e6
    mean, half_width = mean_interval(costs)
    stable = all(measurement.status == "ok" for measurement in found) and mean > 0
    return TableRow(
        block=block,
        workload=workload,
        latency_ms=max(mean, 0.0) * scale_ms,
        low_ms=max(mean - half_width, 0.0) * scale_ms,
        high_ms=max(mean + half_width, 0.0) * scale_ms,
        sessions=len(costs),
        status="ok" if stable else "unstable",
    )
