"""The rows of a run's device in the store: kept as they are measured, used where it is absent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from latency.artifact import Artifact
from latency.devices import find_profile
from latency.grid import plan
from latency.measurement import Measurement
from latency.protocol import PROTOCOL_VERSION
from latency.resources import RESOURCES, amounts_of, resource_fields
from latency.table import LatencyTable, TableRow, fill_in
from latency.table_measurement import row_provenance
from latency.table_store import SUBNET, StoredRow, TableIdentity, TableStore
from nas.stages.whole_subnets import intervals_of, mode_of, resources_of
from search_spaces import Architecture, Block, UserError, Workload
from search_spaces.schemes import SCHEMES, with_version
from search_spaces.transformer import fixed_facts

if TYPE_CHECKING:
    from nas.stages.device_lab import DeviceLab


class DeviceTables:
    """The stored tables of a run's device, as far as they are of its network and mode."""

    def __init__(self, lab: DeviceLab) -> None:
        self.lab = lab
        self.store = TableStore(lab.run.connection)
        self.network = fixed_facts(lab.space.to_json())

    def identity(self, fingerprint: Mapping[str, str]) -> TableIdentity:
        """What rows of the device with this fingerprint belong to, in the run's mode."""
        profile = self.lab.profile
        return TableIdentity(
            device=profile.name,
            backend=profile.backend,
            precision=self.lab.backend.build_facts()["precision"],
            threads=profile.threads,
            mode=self.lab.timing.mode,
            protocol=PROTOCOL_VERSION,
            fingerprint=dict(fingerprint),
            network=self.network,
        )

    def known(self) -> dict[tuple[str, Block], TableRow]:
        """Imported rows of the device as it is now, by workload and block: not measured again."""
        rows = self._rows(self.identity(self.lab.fingerprint))
        return self._table_rows((mode, row) for mode, row in rows if row.imported)

    def last(self) -> TableIdentity | None:
        """The table of this network that was used last, in a mode that will do."""
        for identity, _ in self.store.tables(self.lab.profile.name):
            current = identity.mode in self._modes and identity.protocol == PROTOCOL_VERSION
            if current and identity.network == self.network and self._fits(identity):
                return identity
        return None

    def misfit(self) -> str:
        """Why the table that was used last will not do, as the end of a line; often empty."""
        wanted = {"mode": self.lab.timing.mode, "protocol": PROTOCOL_VERSION, **self.network}
        for identity, _ in self.store.tables(self.lab.profile.name)[:1]:
            found = {"mode": identity.mode, "protocol": identity.protocol, **identity.network}
            names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
            others = [f"{name} {found.get(name)}, not {wanted.get(name)}" for name in names]
            return (
                f"; its table of {identity.device} is of {', '.join(others) or 'another profile'}: "
                "measure it for this run where the device is, and import that"
            )
        return ""

    def _fits(self, identity: TableIdentity) -> bool:
        """Whether a table is of the device as its profile has it, where there is a profile."""
        profile = self.lab.profile
        if find_profile(profile.name) is None:
            return True
        told = identity.fingerprint
        return (
            (profile.backend, profile.threads) == (identity.backend, identity.threads)
            and profile.provider == told.get("provider", profile.provider)
            and told.get("spinning") in (None, "on" if profile.spins else "off")
            and profile.options.get("precision", identity.precision) == identity.precision
        )

    def change(self) -> str | None:
        """A line on what has changed since the device's last rows; None where nothing has."""
        now = self.identity(self.lab.fingerprint)
        for identity, used_at in self.store.tables(now.device)[:1]:
            changes = identity.changes(now)
            rows = self.store.rows(identity)
            if changes and rows:
                imported = all(row.imported for row in rows)
                return (
                    f"device {now.device} is not as in its table {'imported' if imported else 'of'}"
                    f" {used_at[:10]}: {', '.join(changes)}; the {len(rows)} old rows are kept, "
                    "but not used"
                    + "; import under another name (--device) to search for that device"
                    * imported
                )
        return None

    def keep(self, table: LatencyTable) -> int:
        """Store the rows of a table that were measured here; returns how many are new.

        Rows of standard sessions that a quick table takes are stored as standard ones.
        """
        facts = self._session_facts()
        return self._add(
            (
                row.mode,
                StoredRow(
                    workload=self.lab.workloads[row.workload],
                    kind=row.block.kind,
                    widths=_versioned(row.block.genes),
                    latency_ms=row.latency_ms,
                    low_ms=row.low_ms,
                    high_ms=row.high_ms,
                    sessions=row.sessions,
                    status=row.status,
                    energy_mj=row.energy_mj,
                    peak_memory_bytes=row.peak_memory_bytes,
                    provenance=_with_facts(row.provenance, facts, row.resources),
                ),
            )
            for row in table.rows
            if row.provenance
        )

    def keep_whole(
        self, workload: Workload, artifacts: Sequence[Artifact], found: Sequence[Measurement]
    ) -> int:
        """Store whole subnets that were measured here; returns how many are new."""
        facts = self._session_facts()
        return self._add(
            (
                mode_of(one),
                StoredRow(
                    workload=workload,
                    kind=SUBNET,
                    widths=_versioned(_genes(artifact)),
                    latency_ms=one.median_ns / 1e6,
                    low_ms=None if one.low_ns is None else one.low_ns / 1e6,
                    high_ms=None if one.high_ns is None else one.high_ns / 1e6,
                    sessions=one.sessions,
                    status=one.status,
                    **{name: told[name] for name in RESOURCES},
                    provenance=_with_facts(
                        row_provenance([one], [artifact], list(one.session_ratios)), facts, told
                    ),
                ),
            )
            for artifact, one in zip(artifacts, found, strict=True)
            if one.median_ns is not None and (told := resource_fields(amounts_of(one)))
        )

    def modes(self, identity: TableIdentity) -> list[str]:
        """The modes of the rows that are used of a table."""
        return sorted({mode for mode, _ in self._rows(identity)})

    def stored_subnets(self, identity: TableIdentity) -> list[tuple[str, StoredRow]]:
        """The whole subnets that were measured, with their modes; the better one of each.

        Those with another version of a scheme are left out.
        """
        subnets = {}
        for mode, row in self._rows(identity):
            genes = _unversioned(row.widths)
            if row.kind == SUBNET and genes is not None:
                subnets[row.key] = (mode, replace(row, widths=genes))
        return list(subnets.values())

    def stored(self, identity: TableIdentity) -> LatencyTable:
        """A table for the run's space and workloads.

        Raises:
            UserError: Blocks are missing that cannot be interpolated.
        """
        blocks = self.lab.space.timed_blocks()
        rows = self._rows(identity)
        held_out = plan(blocks, self.lab.run.config.latency.grid).held_out
        table = fill_in(self._table_rows(rows), self.lab.workloads, blocks, held_out)
        there = {(row.workload, row.block) for row in table.rows}
        lacking = [(n, b) for n in self.lab.workloads for b in blocks if (n, b) not in there]
        if lacking:
            name, block = lacking[0]
            old = sorted({scheme for _, row in rows for scheme in _other_versions(row.widths)})
            of_old = f" (it has rows of {', '.join(old)}, which is another now)" if old else ""
            raise UserError(
                f"the stored table of {identity.device} lacks {len(lacking)} of "
                f"{len(blocks) * len(self.lab.workloads)} rows, such as {block} with workload "
                f"{name} ({self.lab.workloads[name]}){of_old}; measure them where the device is, "
                "or take the space and the workloads that it was measured for"
            )
        return table

    @property
    def _modes(self) -> tuple[str, ...]:
        """Modes whose rows will do; standard ones also for a quick table, where both are."""
        return ("standard",) if self.lab.timing.mode == "standard" else ("quick", "standard")

    def _rows(self, identity: TableIdentity) -> list[tuple[str, StoredRow]]:
        """The rows of a table in all modes that will do, with their mode; the best one last."""
        return [
            (mode, row)
            for mode in self._modes
            for row in self.store.rows(replace(identity, mode=mode))
        ]

    def _table_rows(
        self, rows: Iterable[tuple[str, StoredRow]]
    ) -> dict[tuple[str, Block], TableRow]:
        """Rows of the run's blocks and workloads; of two for the same, the last one."""
        blocks = {_key(b.kind, _versioned(b.genes)): b for b in self.lab.space.timed_blocks()}
        found = {}
        for mode, row in rows:
            block = blocks.get(_key(row.kind, row.widths))
            for name, workload in self.lab.workloads.items():
                if block is not None and workload == row.workload:
                    found[name, block] = TableRow(
                        block=block,
                        workload=name,
                        latency_ms=row.latency_ms,
                        low_ms=row.latency_ms if row.low_ms is None else row.low_ms,
                        high_ms=row.latency_ms if row.high_ms is None else row.high_ms,
                        sessions=row.sessions,
                        status=row.status,
                        mode=mode,
                        **resources_of(row),
                    )
        return found

    def _session_facts(self) -> dict[str, dict[str, Any]]:
        device = self.lab.store.add_device(self.lab.fingerprint)
        return {row["session_id"]: row for row in self.lab.store.sessions(device)}

    def _add(self, rows: Iterable[tuple[str | None, StoredRow]]) -> int:
        identity = self.identity(self.lab.fingerprint)
        return self.store.add(
            (identity if mode is None else replace(identity, mode=mode), row) for mode, row in rows
        )


def _genes(artifact: Artifact) -> dict[str, int | str]:
    arch = Architecture.from_json(str(artifact.provenance["architecture"]))
    return {name: value if isinstance(value, str) else int(value) for name, value in arch.items()}


def _versioned(genes: Mapping[str, int | str]) -> dict[str, int | str]:
    """Widths or genes as a table keeps them."""
    return {name: with_version(v) if isinstance(v, str) else v for name, v in genes.items()}


def _other_versions(widths: Mapping[str, int | str]) -> list[str]:
    """The schemes of a stored row that are not of the version that they have now."""
    texts = [value for value in widths.values() if isinstance(value, str)]
    return [text for text in texts if text not in map(with_version, SCHEMES)]


def _unversioned(widths: Mapping[str, int | str]) -> dict[str, int | str] | None:
    """The genes of a stored row; None if one of its schemes is of another version."""
    if _other_versions(widths):
        return None
    return {n: v.partition(" ")[0] if isinstance(v, str) else v for n, v in widths.items()}


def _key(kind: str, widths: Mapping[str, int | str]) -> tuple[str, frozenset[tuple[str, object]]]:
    return kind, frozenset(widths.items())


def _with_facts(
    provenance: Mapping[str, Any], facts: Mapping[str, dict[str, Any]], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Provenance with all that is known of its sessions, the raw samples aside."""
    sessions = [facts[name] for name in provenance["sessions"]]
    return {**provenance, "sessions": sessions, "intervals": intervals_of(fields)}
