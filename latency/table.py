"""A latency table: what each block of a search space costs on a device, measured there."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from latency.artifact import Artifact
from latency.backend import DeviceBackend
from latency.chains import chain
from latency.export import build_key, export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.grid import plan
from latency.interpolation import InterpolationError, interpolate
from latency.measurement import Measurement
from latency.overhead import FEW, MANY, Overhead, overhead_of, references
from latency.protocol import Progress, measure
from latency.resources import RESOURCES, resource_of
from latency.statistics import mean_interval
from latency.store import LatencyStore
from latency.timing import TimingConfig
from search_spaces.blocks import Block, Workload
from search_spaces.errors import UserError
from search_spaces.transformer import TransformerSpace

EXPORTED = 0.25
"""An artifact that was exported and not timed yet counts as so much done."""


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
    """Sessions it was measured in; 0 for an interpolated row."""
    status: str
    """`ok`, `unstable` or `interpolated`."""
    std_ms: float | None = None
    """Standard deviation of an interpolated row; the interval is 1.96 times that to each side."""
    energy_mj: float | None = None
    peak_memory_bytes: float | None = None
    """See `latency.backend.Samples`; None where the device does not tell."""
    provenance: Mapping[str, object] = field(default_factory=dict, compare=False)
    """See `row_provenance`."""

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
            "std_ms": self.std_ms,
            **{name: getattr(self, name) for name in RESOURCES},
        }


class LatencyTable:
    """Rows by workload and block.

    Args:
        rows: One per block and workload.
        interpolation: How wrong the interpolated rows are, by workload and kind.

    Raises:
        UserError: Two rows for the same block and workload.
    """

    def __init__(
        self, rows: Iterable[TableRow], interpolation: Iterable[InterpolationError] = ()
    ) -> None:
        self.rows = tuple(rows)
        self.interpolation = tuple(interpolation)
        self._rows: dict[tuple[str, Block], TableRow] = {}
        for row in self.rows:
            if (row.workload, row.block) in self._rows:
                raise UserError(f"the latency table has two rows for {row.block}; measure again")
            self._rows[row.workload, row.block] = row

    def latency_ms(self, workload: str, block: Block) -> float:
        """Latency of one block in ms.

        Raises:
            UserError: The block was not measured: the table is of another space.
        """
        return self.row(workload, block).latency_ms

    def std_ms(self, workload: str, block: Block) -> float:
        """Standard deviation of an interpolated row in ms; 0 for a measured one.

        Raises:
            UserError: As for `latency_ms`.
        """
        return self.row(workload, block).std_ms or 0.0

    def row(self, workload: str, block: Block) -> TableRow:
        """The row of one block.

        Raises:
            UserError: As for `latency_ms`.
        """
        try:
            return self._rows[workload, block]
        except KeyError:
            raise UserError(
                f"the latency table has no row for {block} with workload {workload!r}: it is of "
                "another space; run `nas measure` again"
            ) from None


def fill_in(
    rows: Mapping[tuple[str, Block], TableRow],
    workloads: Iterable[str],
    blocks: Sequence[Block],
    held_out: frozenset[Block],
) -> LatencyTable:
    """The table of a space: measured rows, and interpolated ones between them.

    A block that lies outside of what was measured has no row.

    Args:
        rows: The measured rows by workload and block.
        workloads: Names of the workloads.
        blocks: All blocks of the space, in the order of the table.
        held_out: Blocks that the error of interpolation is stated on.
    """
    found, errors = dict(rows), []
    for workload in workloads:
        for kind in dict.fromkeys(block.kind for block in blocks):
            wanted = [b for b in blocks if b.kind == kind and (workload, b) not in rows]
            if not wanted:
                continue
            measured = {
                block: row.latency_ms
                for (name, block), row in rows.items()
                if name == workload and block.kind == kind
            }
            values, error = interpolate(workload, measured, wanted, held_out)
            errors.append(error)
            resources = {
                name: _resource(name, {b: rows[workload, b] for b in measured}, wanted)
                for name in RESOURCES
            }
            for block, latency_ms in values.items():
                row = _interpolated(workload, block, latency_ms, error.std)
                told: dict[str, Any] = {
                    name: values.get(block) for name, values in resources.items()
                }
                found[workload, block] = replace(row, **told)
    order = ((workload, block) for workload in workloads for block in blocks)
    return LatencyTable((found[key] for key in order if key in found), errors)


def _resource(
    name: str, rows: Mapping[Block, TableRow], wanted: Sequence[Block]
) -> dict[Block, float]:
    """A resource of the wanted blocks, interpolated; empty where the device does not tell."""
    told = {block: getattr(row, name) for block, row in rows.items()}
    if None in told.values():
        return {}
    return interpolate(name, told, wanted, frozenset())[0]


def _interpolated(workload: str, block: Block, latency_ms: float, share: float) -> TableRow:
    std_ms = latency_ms * share
    return TableRow(
        block=block,
        workload=workload,
        latency_ms=latency_ms,
        low_ms=max(latency_ms - 1.96 * std_ms, 0.0),
        high_ms=latency_ms + 1.96 * std_ms,
        sessions=0,
        status="interpolated",
        std_ms=std_ms,
    )


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
    grid: int | None = None,
    budget_s: float | None = None,
    known: Mapping[tuple[str, Block], TableRow] | None = None,
    keep: Callable[[LatencyTable], None] | None = None,
    company: Mapping[str, Sequence[Artifact]] | None = None,
) -> tuple[LatencyTable, dict[str, list[Measurement]]]:
    """Measure the blocks of a space, all of them or a grid, and interpolate the others.

    A block is timed in a chain of 8 like it, and costs an eighth of that less what a chain costs
    without any block. That overhead is of the kind of block, not of its widths: it is what chains
    of 2 and of 8 of the smallest blocks, in the same sessions, leave for no block at all. The
    network without layers is the fixed row of its embedding width. What the store knows of this
    device is not measured again.

    Args:
        space: Which blocks there are.
        workloads: What a call is given, by name.
        backend: The device.
        timing: The measuring protocol's numbers.
        store: Where sessions are kept.
        library: Exported parts.
        folder: Where the chains' files are kept.
        progress: Told (how many artifacts' worth is done, of how many, what happens).
        lease: The physical device; one measurement at a time on each.
        grid: See `latency.grid.plan`.
        budget_s: No step is begun that would end later than this; the first always is.
        known: Rows that need no measuring, such as imported ones.
        keep: Given the table after each step, with all rows, whether measured yet or not.
        company: Whole models by workload that are timed in the sessions of the first step. So
            they meet the machine in the state that the blocks met, and over a longer time.

    Returns:
        The table, and the measurements of the company by workload, in its order.

    Raises:
        UserError: The device cannot run a block, or was lost.
    """
    for workload in workloads.values():
        space.check_workload(workload)
    blocks = space.all_blocks()
    chosen = plan(blocks, grid)
    rows = dict(known or {})
    steps = [
        (step, name, [block for block in chosen.steps[step] if (name, block) not in rows])
        for step in range(len(chosen.steps))
        for name in workloads
    ]
    company = company or {}
    smallest = references(chosen.steps[0])
    overheads: dict[str, dict[str, Overhead]] = {}
    sizes = [
        len(wanted) + (0 if step else len(smallest) + len(company.get(name, ())))
        for step, name, wanted in steps
    ]
    started_s, done = time.monotonic(), 0
    table, found = LatencyTable(()), {}
    for (step, name, wanted), size in zip(steps, sizes, strict=True):
        spent_s = time.monotonic() - started_s
        if step and budget_s is not None and spent_s * (1 + size / max(done, 1)) > budget_s:
            break
        tell = _Share(progress, done, sum(sizes))
        chains: dict[Block, list[Artifact]] = {}
        unknown = {block.kind for _, of, others in steps if of == name for block in others}
        pairs = [] if step else [block for block in smallest if block.kind in unknown]
        load = workloads[name]
        for block in dict.fromkeys([*pairs, *wanted]):
            tell.exported(len(chains), f"exporting {block}")
            copies = (0,) if block.kind == "fixed" else (FEW, MANY) if block in pairs else (MANY,)
            chains[block] = [
                _chain(space, block, count, load, backend, library, folder) for count in copies
            ]
        groups: list[Sequence[Artifact]] = list(chains.values())
        if not step:
            groups += [(one,) for one in company.get(name, ())]
        results = {}
        if groups:
            results = measure(
                groups,
                backend=backend,
                timing=timing,
                store=store,
                progress=tell.measured,
                lease=lease,
            )
        measured = {
            block: [results[one.sha256] for one in group] for block, group in chains.items()
        }
        if not step:
            found[name] = [results[one.sha256] for one in company.get(name, ())]
            overheads[name] = {
                kind: overhead_of(
                    [(measured[b][0], measured[b][1]) for b in pairs if b.kind == kind]
                )
                for kind in dict.fromkeys(block.kind for block in pairs)
            }
        for block in wanted:
            overhead = overheads[name].get(block.kind, Overhead())
            rows[name, block] = _row(block, name, measured[block][-1], chains[block][-1], overhead)
        done += size
        table = fill_in(rows, workloads, blocks, chosen.held_out)
        if keep is not None and name == list(workloads)[-1]:
            keep(table)
    return table, found


class _Share:
    """Progress of one step as a part of all of them."""

    def __init__(self, progress: Progress | None, before: int, total: int) -> None:
        self.progress = progress
        self.before = before
        self.total = total

    def exported(self, done: int, line: str) -> None:
        if self.progress is not None:
            self.progress(self.before + EXPORTED * done, self.total, line)

    def measured(self, done: float, count: int, line: str) -> None:
        if self.progress is not None:
            part = EXPORTED * count + (1 - EXPORTED) * done
            self.progress(self.before + part, self.total, line)


def _chain(
    space: TransformerSpace,
    block: Block,
    copies: int,
    workload: Workload,
    backend: DeviceBackend,
    library: GraphLibrary,
    folder: Path,
) -> Artifact:
    """The file of a chain of equal blocks."""
    facts: dict[str, object] = {"block": str(block), "copies": copies, "workload": str(workload)}
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
    return artifact


def _row(
    block: Block, workload: str, found: Measurement, artifact: Artifact, overhead: Overhead
) -> TableRow:
    """The fixed part is measured as it is, any other block as its part of a chain."""
    if found.sessions < 2 or found.baseline_ns is None:
        # A single session says nothing of its error.
        raise UserError(
            f"{block} could not be measured: {found.status}, {found.message}; "
            "run `nas doctor` for this device, then the same command again"
        )
    copies = 1 if block.kind == "fixed" else MANY
    mean, half_width = mean_interval(list(found.session_ratios.values()))
    cost = (mean - overhead.ratio) / copies
    half_width = math.hypot(half_width, overhead.half_width) / copies
    scale_ms = found.baseline_ns / 1e6
    resources = {
        name: None
        if value is None
        else max(value - (overhead.resources.get(name) or 0.0), 0.0) / copies
        for name, value in resource_of(found).items()
    }
    return TableRow(
        block=block,
        workload=workload,
        latency_ms=max(cost, 0.0) * scale_ms,
        low_ms=max(cost - half_width, 0.0) * scale_ms,
        high_ms=max(cost + half_width, 0.0) * scale_ms,
        sessions=found.sessions,
        status="ok" if found.status == "ok" and cost > 0 else "unstable",
        **resources,
        provenance={
            **row_provenance([found], [artifact], list(found.session_ratios)),
            "copies": copies,
            "overhead_ratio": overhead.ratio,
        },
    )


def row_provenance(
    found: Sequence[Measurement], group: Sequence[Artifact], sessions: Sequence[str]
) -> dict[str, object]:
    """Where a row comes from.

    Args:
        found: The measurements of its models.
        group: The models.
        sessions: Ids of the sessions that timed all of them.

    Returns:
        `models`: SHA-256, what their files say, and the ratio to the anchor per session.
        `sessions`: their ids. `anchor_ns`: what ratios were multiplied with.
    """
    return {
        "models": [
            {
                "sha256": one.sha256,
                **one.provenance,
                "ratios": [measurement.session_ratios[i] for i in sessions],
            }
            for measurement, one in zip(found, group, strict=True)
        ],
        "sessions": list(sessions),
        "anchor_ns": found[0].baseline_ns,
    }
