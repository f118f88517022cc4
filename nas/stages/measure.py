"""Measure the latency table of a run's device, and correct it by a few whole subnets."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from latency.artifact import Artifact
from latency.backend import DeviceBackend
from latency.chains import whole_inputs
from latency.devices import DeviceProfile, get_device, open_backend
from latency.export import export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.measurement import FAILED, Measurement
from latency.noise import session_noise
from latency.protocol import Progress, measure
from latency.remote_profile import close_backend
from latency.store import LatencyStore
from latency.table import LatencyTable, measure_table
from latency.timing import TimingConfig
from nas.atomic import read_json, write_json
from nas.progress import Update, progress
from nas.run import Run
from nas.stages.prediction import Prediction, read_rows
from nas.stages.supernet import build_space
from predictors.protocol import ArchitecturePredictor
from predictors.table import Correction, TablePredictor
from search_spaces import Architecture, TransformerSpace, UserError, Workload, sample_by_cost
from supernet.families import build_supernet


class DeviceLab:
    """A run's device with what is needed to measure on it."""

    def __init__(self, run: Run, space: TransformerSpace) -> None:
        self.run = run
        self.space = space
        self.workloads = run.config.calls
        for workload in self.workloads.values():
            space.check_workload(workload)
        self.profile: DeviceProfile = get_device(run.device)
        self.backend: DeviceBackend = open_backend(self.profile)
        weakref.finalize(self, close_backend, self.backend)
        mode = run.config.latency.mode
        self.timing = TimingConfig.quick() if mode == "quick" else TimingConfig.standard()
        self.store = LatencyStore(run.connection)
        self.library = GraphLibrary(run.directory.path / "graphs" / "parts")
        self.folder = run.directory.path / "graphs"

    def measure_whole(
        self, artifacts: Mapping[str, Sequence[Artifact]], title: str
    ) -> dict[str, list[Measurement]]:
        """Whole models by workload, in the given order."""
        results = {}
        for workload, models in artifacts.items():
            with progress(self.run.console, f"{title} ({workload})", len(models)) as update:
                found = measure(
                    list(models),
                    backend=self.backend,
                    timing=self.timing,
                    store=self.store,
                    progress=told(update),
                    lease=self.profile.lease,
                )
            results[workload] = [found[artifact.sha256] for artifact in models]
        return results

    def describe(self) -> dict[str, Any]:
        """The device as it stands in the stage files."""
        return {
            "name": self.profile.name,
            "backend": self.profile.backend,
            "threads": self.profile.threads,
            "fingerprint": dict(self.backend.fingerprint()),
        }


def told(update: Update) -> Progress:
    """A progress bar for `latency.protocol.measure`."""
    return lambda done, total, line: update(done, f"{done}/{total}: {line}")


def measure_device(run: Run, space: TransformerSpace | None = None) -> dict[str, Any]:
    """Measure the table of the run's device; what the store holds is not measured again.

    Leaves `table.json`. Needs no trained weights.
    """
    lab = DeviceLab(run, space or build_space(run.config))
    if run.config.latency.predictor in ("learned", "transfer"):
        table = LatencyTable(())
    else:
        table = measure_blocks(lab)
    fits, whole = fit_whole(lab, table, run.config.latency.predictor)
    write_json(
        run.directory.table,
        {
            "schema": 1,
            "device": lab.describe(),
            "space": lab.space.digest,
            "workloads": {name: load.to_json() for name, load in lab.workloads.items()},
            "mode": lab.timing.mode,
            "predictor": run.config.latency.predictor,
            "rows": [row.to_json() for row in table.rows],
            "corrections": {name: fit for name, (_, fit) in fits.items()},
            "whole": whole,
        },
    )
    return {
        "rows": len(table.rows),
        "unstable_rows": sum(row.status != "ok" for row in table.rows),
        "mode": lab.timing.mode,
        "failed_measurements": sum(subnet["status"] in FAILED for subnet in whole),
    }


def measure_blocks(lab: DeviceLab) -> LatencyTable:
    """Measure every block under every workload; what the store holds is not measured again."""
    blocks = len(lab.space.all_blocks()) * len(lab.workloads)
    with progress(lab.run.console, f"Measuring {blocks} blocks on {lab.run.device}", 1) as update:
        return measure_table(
            lab.space,
            lab.workloads,
            backend=lab.backend,
            timing=lab.timing,
            store=lab.store,
            library=lab.library,
            folder=lab.folder / "chains",
            lease=lab.profile.lease,
            progress=lambda done, total, line: update(done / total, f"{done}/{total}: {line}"),
        )


def correct(
    lab: DeviceLab, table: LatencyTable
) -> tuple[dict[str, Correction], list[dict[str, Any]]]:
    """`fit_whole` for the table alone, whatever the configuration asks for.

    Returns:
        Corrections by workload, and the subnets as they stand in `table.json`.
    """
    fits, whole = fit_whole(lab, table, "table")
    corrections = {}
    for name, (predictor, _) in fits.items():
        assert isinstance(predictor, TablePredictor)
        corrections[name] = predictor.correction
    return corrections, whole


def fit_whole(
    lab: DeviceLab, table: LatencyTable, kind: str
) -> tuple[dict[str, tuple[ArchitecturePredictor, dict[str, Any]]], list[dict[str, Any]]]:
    """Measure whole subnets spread over size, and fit a predictor on them.

    Args:
        lab: The device.
        table: Its rows; none for a predictor that does without.
        kind: One of the values of `latency.predictor`.

    Returns:
        Predictors by workload with what `table.json` keeps of them, and the subnets as they stand
        there.
    """
    fits = {}
    whole: list[dict[str, Any]] = []
    for name, workload in lab.workloads.items():
        prediction = Prediction(lab.run, lab.space, table, name, kind)
        architectures = sample_by_cost(
            lab.space,
            prediction.size,
            lab.run.config.latency.correction_subnets,
            np.random.default_rng(lab.run.config.seed),
        )
        artifacts = random_subnets(lab, architectures, {name: workload})
        found = lab.measure_whole(artifacts, "Measuring whole subnets")[name]
        usable = [
            (arch, measurement)
            for arch, measurement in zip(architectures, found, strict=True)
            if measurement.median_ns is not None
        ]
        predictor, fit = prediction.fit(
            [arch for arch, _ in usable],
            [_ms(m.median_ns) for _, m in usable],
            session_noise([m.session_ratios for _, m in usable]),
        )
        fits[name] = predictor, fit
        predicted = predictor.predict(architectures)[0].tolist()
        for arch, predicted_ms, measurement in zip(architectures, predicted, found, strict=True):
            whole.append(
                {
                    "workload": name,
                    "architecture": dict(arch),
                    "predicted_ms": predicted_ms,
                    "measured_ms": _optional_ms(measurement.median_ns),
                    "low_ms": _optional_ms(measurement.low_ns),
                    "high_ms": _optional_ms(measurement.high_ns),
                    "status": measurement.status,
                }
            )
    return fits, whole


def random_subnets(
    lab: DeviceLab, architectures: Sequence[Architecture], workloads: Mapping[str, Workload]
) -> dict[str, list[Artifact]]:
    """Whole subnets with random weights, which have the latency of trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(lab.space)
    artifacts: dict[str, list[Artifact]] = {name: [] for name in workloads}
    for name, workload in workloads.items():
        for arch in architectures:
            facts = {"architecture": arch.to_json(), "workload": str(workload)}
            path = lab.folder / "whole" / _file_name(lab.space, arch, workload)
            artifact = known_artifact(path, facts)
            if artifact is None:
                network = supernet.extract(arch).network()
                feeds = whole_inputs(network, workload)
                artifact = export_network(
                    network, feeds, path, library=lab.library, provenance=facts
                )
            artifacts[name].append(artifact)
    return artifacts


def _file_name(space: TransformerSpace, arch: Architecture, workload: Workload) -> str:
    return f"{space.digest}-{arch.key}-{str(workload).replace(',', '-')}.onnx"


def load_predictors(run: Run, space: TransformerSpace) -> dict[str, ArchitecturePredictor]:
    """The predictors of `table.json`, by workload.

    Raises:
        UserError: There is no table, or it is of another space, device or workload.
    """
    path = run.directory.table
    if not path.exists():
        raise UserError(f"{path} does not exist; run `nas measure` first")
    data = read_json(path)
    try:
        workloads = {name: load.to_json() for name, load in run.config.calls.items()}
        for what, found, wanted in (
            ("search space", data["space"], space.digest),
            ("device", data["device"]["name"], run.device),
            ("workload", data["workloads"], workloads),
            ("measuring mode", data["mode"], run.config.latency.mode),
            ("predictor", data.get("predictor", "auto"), run.config.latency.predictor),
        ):
            if found != wanted:
                raise UserError(
                    f"{path} is of another {what} ({found}, not {wanted}); run `nas measure` again"
                )
        table = read_rows(data)
        return {
            name: Prediction(run, space, table, name, run.config.latency.predictor).read(
                data["corrections"][name], data["whole"]
            )
            for name in workloads
        }
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}); delete it and run `nas measure` again"
        ) from None


def _ms(latency_ns: float | None) -> float:
    assert latency_ns is not None
    return latency_ns / 1e6


def _optional_ms(latency_ns: float | None) -> float | None:
    return None if latency_ns is None else latency_ns / 1e6
