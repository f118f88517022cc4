"""A latency table: what each block of a search space costs on a device, measured there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latency.added_schemes import added_up, error_of_sums
from latency.interpolation import InterpolationError, interpolate
from latency.resources import RESOURCES
from latency.statistics import Z_95
from search_spaces.blocks import Block
from search_spaces.errors import UserError

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
    mode: str | None = None
    """`quick` or `standard`, of all its sessions; None for an interpolated row."""
    std_ms: float | None = None
    """Standard deviation of an interpolated row; the interval is 1.96 times that to each side."""
    energy_mj: float | None = None
    peak_memory_bytes: float | None = None
    """See `latency.backend.Samples`; mean over sessions; None where the device does not tell."""
    energy_mj_interval: Sequence[float] | None = None
    peak_memory_bytes_interval: Sequence[float] | None = None
    """Ends of the 95 % intervals over sessions; None where there are none."""
    provenance: Mapping[str, object] = field(default_factory=dict, compare=False)
    """See `latency.table_measurement.row_provenance`."""

    def to_json(self) -> dict[str, object]:
        """The row as it stands in `table.json`."""
        return {
            "workload": self.workload,
            "kind": self.block.kind,
            "widths": self.block.genes,
            "latency_ms": self.latency_ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "sessions": self.sessions,
            "status": self.status,
            "mode": self.mode,
            "std_ms": self.std_ms,
            **self.resources,
        }

    @property
    def resources(self) -> dict[str, Any]:
        """Energy and peak memory, with their intervals, by the names of the fields."""
        names = [name for one in RESOURCES for name in (one, f"{one}_interval")]
        return {name: getattr(self, name) for name in names}


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

    def row(self, workload: str, block: Block) -> TableRow:
        """The row of one block.

        Raises:
            UserError: As for `latency_ms`.
        """
        try:
            return self._rows[workload, block.timed]
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

    Along the widths first; a block whose schemes were not measured together is the sum of what
    each changes alone. A block that lies outside of what was measured has no row.

    Args:
        rows: The measured rows by workload and block.
        workloads: Names of the workloads.
        blocks: All blocks of the space, in the order of the table.
        held_out: Blocks that the error of interpolation is stated on.
    """
    found, errors = dict(rows), []
    for workload in workloads:
        for variant in dict.fromkeys(block.variant for block in blocks):
            wanted = [b for b in blocks if b.variant == variant and (workload, b) not in rows]
            if not wanted:
                continue
            measured = {
                block: row.latency_ms
                for (name, block), row in rows.items()
                if name == workload and block.variant == variant
            }
            values, error = interpolate(workload, measured, wanted, held_out)
            if not values:
                continue
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
        sums = _sums(workload, found, blocks)
        found |= {(workload, block): row for block, row in sums[0].items()}
        errors += sums[1]
    order = ((workload, block) for workload in workloads for block in blocks)
    return LatencyTable((found[key] for key in order if key in found), errors)


def _sums(
    workload: str, rows: Mapping[tuple[str, Block], TableRow], blocks: Sequence[Block]
) -> tuple[dict[Block, TableRow], list[InterpolationError]]:
    """Rows of blocks with several schemes that have none, and the errors by kind."""
    there = {block: row for (name, block), row in rows.items() if name == workload}
    latency = {block: row.latency_ms for block, row in there.items()}
    found, errors = {}, []
    for kind in dict.fromkeys(block.kind for block in blocks):
        several = [block for block in blocks if block.kind == kind and len(block.precision) > 1]
        sums = {b: ms for b in several if (ms := added_up(latency, b)) is not None}
        wanted = [block for block in sums if block not in there]
        if not wanted:
            continue
        measured = [block for block in sums if block in there and there[block].sessions]
        error = error_of_sums(workload, kind, len(wanted), latency, measured)
        errors.append(error)
        told = {
            name: {
                b: value for b, row in there.items() if (value := getattr(row, name)) is not None
            }
            for name in RESOURCES
        }
        for block in wanted:
            row = _interpolated(workload, block, sums[block], error.std)
            resources: dict[str, Any] = {
                name: added_up(values, block) for name, values in told.items()
            }
            found[block] = replace(row, **resources)
    return found, errors


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
        low_ms=max(latency_ms - Z_95 * std_ms, 0.0),
        high_ms=latency_ms + Z_95 * std_ms,
        sessions=0,
        status="interpolated",
        std_ms=std_ms,
    )
