"""Measuring the blocks of a search space on a device, in steps that leave a usable table each."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from latency.artifact import Artifact
from latency.backend import DeviceBackend
from latency.chains import chain
from latency.export import build_key, export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.grid import plan
from latency.measurement import Measurement
from latency.overhead import FEW, MANY, Overhead, overhead_of, references
from latency.protocol import Progress, measure
from latency.resources import Amount, amounts_of, resource_fields
from latency.statistics import mean_interval
from latency.store import LatencyStore
from latency.table import LatencyTable, TableRow, fill_in
from latency.timing import TimingConfig
from search_spaces.blocks import Block, Workload
from search_spaces.errors import UserError
from search_spaces.schemes import later_versions
from search_spaces.transformer import TransformerSpace

EXPORTED = 0.25
"""An artifact that was exported and not timed yet counts as so much done."""


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
    blocks, company = space.timed_blocks(), company or {}
    chosen = plan(blocks, grid)
    rows = dict(known or {})
    steps = [
        (step, name, [block for block in chosen.steps[step] if (name, block) not in rows])
        for step in range(len(chosen.steps))
        for name in workloads
    ]
    smallest = {
        name: [
            block
            for block in references(chosen.steps[0])
            if any(of == name and block.kind in {b.kind for b in some} for _, of, some in steps)
        ]
        for name in workloads
    }
    sizes = [
        len(wanted) + (0 if step else len(smallest[name]) + len(company.get(name, ())))
        for step, name, wanted in steps
    ]
    started_s, done = time.monotonic(), 0
    table, overheads, found = LatencyTable(()), {}, {}
    for (step, name, wanted), size in zip(steps, sizes, strict=True):
        spent_s = time.monotonic() - started_s
        if step and budget_s is not None and spent_s * (1 + size / max(done, 1)) > budget_s:
            break
        tell = _Share(progress, done, sum(sizes))
        pairs = [] if step else smallest[name]
        chains: dict[Block, list[Artifact]] = {}
        for block in dict.fromkeys([*pairs, *wanted]):
            tell.exported(len(chains), f"exporting {block}")
            copies = (0,) if block.kind == "fixed" else (FEW, MANY) if block in pairs else (MANY,)
            chains[block] = [
                _chain(space, block, count, workloads[name], backend, library, folder)
                for count in copies
            ]
        whole = [] if step else list(company.get(name, ()))
        groups = [*chains.values(), *([one] for one in whole)]
        results: Mapping[str, Measurement] = {}
        if groups:
            results = measure(
                groups,
                backend=backend,
                timing=timing,
                store=store,
                progress=tell.measured,
                lease=lease,
            )
        if not step:
            found[name] = [results[one.sha256] for one in whole]
            overheads[name] = _overheads({block: chains[block] for block in pairs}, results)
        for block in wanted:
            artifact = chains[block][-1]
            overhead = overheads[name].get(block.kind, Overhead())
            rows[name, block] = _row(
                block, name, results[artifact.sha256], artifact, overhead, timing.interval_target
            )
        done += size
        table = fill_in(rows, workloads, blocks, chosen.held_out)
        if keep is not None and name == list(workloads)[-1]:
            keep(table)
    return table, found


def _overheads(
    pairs: Mapping[Block, Sequence[Artifact]], results: Mapping[str, Measurement]
) -> dict[str, Overhead]:
    """The overhead of each kind, from the pairs of chains of its smallest blocks."""
    found: dict[str, list[tuple[Measurement, Measurement]]] = {}
    for block, (few, many) in pairs.items():
        found.setdefault(block.kind, []).append((results[few.sha256], results[many.sha256]))
    return {kind: overhead_of(measured) for kind, measured in found.items()}


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
    for name in ("precision", "precision_ends"):
        shape.pop(name, None)
    schemes = [name for _, name in block.precision]
    if versions := later_versions(schemes):
        facts["schemes"] = versions
    text = json.dumps([facts, shape, build_key(backend)], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    path = folder / f"{name}{backend.suffix}"
    artifact = known_artifact(path, backend=backend, provenance=facts, schemes=schemes)
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
    block: Block,
    workload: str,
    found: Measurement,
    artifact: Artifact,
    overhead: Overhead,
    interval_target: float,
) -> TableRow:
    """The fixed part is measured as it is, any other block as its part of a chain.

    It is `ok` if the chain is, and if the overhead is known to the same share of the block.
    """
    if found.sessions < 2 or found.baseline_ns is None:
        # A single session says nothing of its error.
        raise UserError(
            f"{block} could not be measured: {found.status}, {found.message}; "
            "run `nas doctor` for this device, then the same command again"
        )
    copies = 1 if block.kind == "fixed" else MANY
    mean, half_width = mean_interval(list(found.session_ratios.values()))
    cost = (mean - overhead.ratio) / copies
    together = mean * found.shared_half_width
    known = cost > 0 and overhead.half_width / copies <= interval_target * cost
    half_width = math.hypot(half_width, together, overhead.half_width) / copies
    scale_ms = found.baseline_ns / 1e6
    resources = {
        name: None if amount is None else _part(amount, overhead.resource(name), copies)
        for name, amount in amounts_of(found).items()
    }
    return TableRow(
        block=block,
        workload=workload,
        latency_ms=max(cost, 0.0) * scale_ms,
        low_ms=max(cost - half_width, 0.0) * scale_ms,
        high_ms=max(cost + half_width, 0.0) * scale_ms,
        sessions=found.sessions,
        status="ok" if found.status == "ok" and known else "unstable",
        mode="quick" if found.quick or overhead.quick else "standard",
        **resource_fields(resources),
        provenance={
            **row_provenance([found], [artifact], list(found.session_ratios)),
            "copies": copies,
            "overhead_ratio": overhead.ratio,
        },
    )


def _part(chain: Amount, overhead: Amount, copies: int) -> Amount:
    """What one block of a chain takes of a resource."""
    half_width = math.hypot(chain[1], overhead[1]) / copies
    return max(chain[0] - overhead[0], 0.0) / copies, half_width


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
        `sessions`: their ids. `anchor_ns`: what ratios were multiplied with. `shared_error`:
        standard error of log(ratio) that models of these sessions have in common. Ratios are
        without session effects (`latency.session_effects`).
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
        "shared_error": max(one.shared for one in found),
    }
