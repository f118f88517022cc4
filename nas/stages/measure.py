"""Measure the latency table of a run's device, and correct it by a few whole subnets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from latency.artifact import Artifact
from latency.grid import plan
from latency.measurement import FAILED, Measurement
from latency.noise import BETWEEN_CALLS, session_noise
from latency.table import LatencyTable
from latency.table_measurement import measure_table
from nas.atomic import write_json
from nas.progress import progress
from nas.run import Run
from nas.stages.device_lab import DeviceLab, random_subnets
from nas.stages.prediction import WITHOUT_TABLE, Prediction
from nas.stages.resources import fit_resources, wanted_resources
from nas.stages.supernet import build_space
from nas.stages.whole_subnets import WholeSubnet
from predictors.protocol import ArchitecturePredictor
from predictors.table import TablePredictor
from search_spaces import TransformerSpace, UserError
from search_spaces.schemes import later_versions

Fits = dict[str, tuple[ArchitecturePredictor, dict[str, Any]]]
"""By workload: a predictor, and what `table.json` keeps of it."""


def measure_device(run: Run, space: TransformerSpace | None = None) -> dict[str, Any]:
    """Measure the table of the run's device; what the store holds is not measured again.

    Leaves `table.json`, also after every step that has brought something new. Needs no trained
    weights. A device that is not at hand is taken from the store, if its table is there.
    """
    lab = DeviceLab(run, space or build_space(run.config))
    kind, resources = run.config.latency.predictor, wanted_resources(run.config)
    if kind == "learned" and lab.space.precision:
        raise UserError(
            "latency.predictor learned knows nothing of space.precision; set latency.predictor to "
            "table"
        )
    if kind in WITHOUT_TABLE and resources:
        raise UserError(
            f"latency.predictor {kind} measures no blocks, which {next(iter(resources))} is "
            "predicted from; set latency.predictor to table, or leave that objective out"
        )
    if lab.absence is not None:
        table, fits, whole = _stored_table(lab)
    else:
        if change := lab.tables.change():
            _say(run, change)
        for line in lab.unprepared():
            _say(run, line)

        def keep(table: LatencyTable) -> None:
            if lab.tables.keep(table):
                rough = {
                    name: TablePredictor(lab.space, table, name).to_json() for name in lab.workloads
                }
                _write_table(lab, table, rough, [])

        table, fits, whole = prepare(lab, keep)
        lab.tables.keep(table)  # a budget may have ended between two workloads of a step
    for error in table.interpolation:
        _say(run, str(error))
    _write_table(lab, table, {name: fit for name, (_, fit) in fits.items()}, whole)
    fit_resources(run.config, lab.space, table, whole)  # told now if the device does not tell them
    counts = Counter(row.status for row in table.rows)
    return {
        "rows": len(table.rows),
        "unstable_rows": len(table.rows) - counts["ok"] - counts["interpolated"],
        "interpolated_rows": counts["interpolated"],
        "mode": lab.timing.mode,
        "failed_measurements": sum(subnet["status"] in FAILED for subnet in whole),
    }


def _say(run: Run, line: str) -> None:
    run.console.print(line, highlight=False, soft_wrap=True, markup=False)
    run.events.write("table", message=line)


def _write_table(
    lab: DeviceLab,
    table: LatencyTable,
    corrections: Mapping[str, Mapping[str, Any]],
    whole: Sequence[Mapping[str, Any]],
) -> None:
    write_json(
        lab.run.directory.table,
        {
            "schema": 1,
            "device": lab.describe(),
            "at_hand": lab.absence is None,
            "space": lab.space.digest,
            "schemes": later_versions(lab.space.precision),
            "workloads": {name: load.to_json() for name, load in lab.workloads.items()},
            "mode": lab.timing.mode,
            "rows": [row.to_json() for row in table.rows],
            "interpolation": [error.to_json() for error in table.interpolation],
            "predictor": lab.run.config.latency.predictor,
            "corrections": corrections,
            "whole": whole,
        },
    )


def prepare(
    lab: DeviceLab, keep: Callable[[LatencyTable], None] | None = None
) -> tuple[LatencyTable, Fits, list[dict[str, Any]]]:
    """Measure what predictions need: blocks under every workload, and a few whole subnets.

    Both share their sessions, so that predictor and table met the machine in the same state.

    Args:
        lab: The device, which is at hand.
        keep: Given the table after each step.

    Returns:
        The table, with interpolated rows for what the plan leaves out, or none for a predictor
        that does without; predictors by workload with what `table.json` keeps of them; and the
        subnets as they stand there.
    """
    kind = lab.run.config.latency.predictor
    architectures = {
        name: Prediction(lab.run, lab.space, LatencyTable(()), name, kind).propose(
            lab.run.config.latency.correction_subnets
        )
        for name in lab.workloads
    }
    artifacts = random_subnets(lab, architectures)
    if kind in WITHOUT_TABLE:
        table = LatencyTable(())
        found = lab.measure_whole(artifacts, "Measuring whole subnets")
    else:
        table, found = _measure_blocks(lab, artifacts, keep)
    for name, models in artifacts.items():
        lab.tables.keep_whole(lab.workloads[name], models, found[name])
    subnets = {
        name: [
            WholeSubnet.of_measurement(arch, one)
            for arch, one in zip(chosen, found[name], strict=True)
        ]
        for name, chosen in architectures.items()
    }
    return table, *_fit(lab, table, subnets)


def _measure_blocks(
    lab: DeviceLab,
    company: Mapping[str, Sequence[Artifact]],
    keep: Callable[[LatencyTable], None] | None,
) -> tuple[LatencyTable, dict[str, list[Measurement]]]:
    settings = lab.run.config.latency
    blocks = len(plan(lab.space.timed_blocks(), settings.grid).blocks) * len(lab.workloads)
    subnets = sum(map(len, company.values()))
    title = f"Measuring {blocks} blocks and {subnets} whole subnets on {lab.run.device}"
    with progress(lab.run.console, title, 1) as update:
        return measure_table(
            lab.space,
            lab.workloads,
            backend=lab.backend,
            timing=lab.timing,
            store=lab.store,
            library=lab.library,
            folder=lab.folder / "chains",
            lease=lab.profile.lease,
            progress=lambda done, total, line: update(done / total, f"{done:.0f}/{total}: {line}"),
            grid=settings.grid,
            budget_s=None if settings.budget_minutes is None else 60 * settings.budget_minutes,
            known=lab.tables.known(),
            keep=keep,
            company=company,
        )


def _stored_table(
    lab: DeviceLab,
) -> tuple[LatencyTable, Fits, list[dict[str, Any]]]:
    """The table of a device that is not at hand, corrected by the subnets measured back then."""
    identity = lab.tables.last()
    assert identity is not None
    _say(
        lab.run,
        f"{lab.absence}; its stored {' and '.join(lab.tables.modes(identity))} table is used, and "
        "nothing is measured on it",
    )
    without = lab.run.config.latency.predictor in WITHOUT_TABLE
    table = LatencyTable(()) if without else lab.tables.stored(identity)
    subnets: dict[str, list[WholeSubnet]] = {name: [] for name in lab.workloads}
    for mode, row in lab.tables.stored_subnets(identity):
        try:
            arch = lab.space.architecture(row.widths)
        except UserError:  # of another space
            continue
        for name, workload in lab.workloads.items():
            if row.workload == workload:
                subnets[name].append(WholeSubnet.of_row(arch, row, mode))
    return table, *_fit(lab, table, subnets)


def _fit(
    lab: DeviceLab, table: LatencyTable, subnets: Mapping[str, Sequence[WholeSubnet]]
) -> tuple[Fits, list[dict[str, Any]]]:
    """Fit a predictor for each workload on its whole subnets."""
    fits: Fits = {}
    whole: list[dict[str, Any]] = []
    for name, timed in subnets.items():
        usable = [one for one in timed if one.measured_ms is not None]
        prediction = Prediction(lab.run, lab.space, table, name, lab.run.config.latency.predictor)
        predictor, fit = prediction.fit(
            [one.architecture for one in usable],
            np.array([one.measured_ms for one in usable], dtype=np.float64),
            replace(
                session_noise(
                    [one.session_ratios for one in usable],
                    max((one.shared for one in usable), default=0.0),
                ),
                between=BETWEEN_CALLS,
            ),
        )
        fits[name] = predictor, fit
        predicted, _ = predictor.predict([one.architecture for one in timed])
        whole += [
            one.to_json(name, predicted_ms)
            for one, predicted_ms in zip(timed, predicted.tolist(), strict=True)
        ]
    return fits, whole
