"""A run's device with what is needed to measure on it: backend, store, files, whole subnets."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from latency.absent import stored_measurements
from latency.artifact import Artifact
from latency.backend import DeviceBackend
from latency.backends import BACKENDS, open_backend
from latency.chains import whole_inputs
from latency.devices import find_profile
from latency.export import build_key, export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.measurement import Measurement
from latency.onnxruntime_backend import CPU, OnnxRuntimeBackend
from latency.protocol import Progress, measure
from latency.store import LatencyStore
from latency.timing import TimingConfig
from nas.progress import Update, progress
from nas.run import Run
from nas.stages.device_tables import DeviceTables
from search_spaces import Architecture, TransformerSpace, UserError, Workload
from search_spaces.schemes import later_versions
from supernet.families import Supernet, build_supernet


class DeviceLab:
    """A run's device with what is needed to measure on it."""

    def __init__(self, run: Run, space: TransformerSpace) -> None:
        self.run = run
        self.space = space
        self.workloads = run.config.calls
        for workload in self.workloads.values():
            space.check_workload(workload)
        self.profile = run.profile
        runtime = (self.profile.backend, self.profile.provider)
        if space.precision and runtime != (OnnxRuntimeBackend.name, CPU):
            raise UserError(
                f"space.precision is for onnxruntime on a CPU; device {self.profile.name} runs "
                f"{' with '.join(runtime)}: leave it out, or choose another device"
            )
        lacking = [name for name in space.precision if name not in self.profile.offered]
        if lacking:
            raise UserError(
                f"space.precision {', '.join(lacking)}: device {self.profile.name} offers "
                f"{', '.join(self.profile.offered)}; leave it out, or change its profile"
            )
        mode = run.config.latency.mode
        self.timing = TimingConfig.quick() if mode == "quick" else TimingConfig.standard()
        self.store = LatencyStore(run.connection)
        self.library = GraphLibrary()
        self.folder = run.directory.path / "graphs"
        self.tables = DeviceTables(self)

    @cached_property
    def backend(self) -> DeviceBackend:
        """The device.

        Raises:
            UserError: The profile does not fit this machine.
        """
        backend = open_backend(self.profile)
        weakref.finalize(self, backend.close)
        return backend

    @cached_property
    def absence(self) -> str | None:
        """Why the device is not at hand although its table is; None where it is at hand.

        Raises:
            UserError: It is not at hand, and there is no table of it.
        """
        known = find_profile(self.profile.name) is not None
        if known and (self.profile.transport == "local" or self.profile.host is not None):
            _ = self.backend  # a mistake in the profile is no absence
        try:
            if not known:
                raise UserError(f"device {self.profile.name} is known from an imported table only")
            self.backend.fingerprint()
        except UserError as error:
            if self.tables.last() is None:
                raise UserError(f"{error}{self.tables.misfit()}") from None
            return str(error)
        return None

    @cached_property
    def compiler(self) -> DeviceBackend:
        """What makes the device's files; where it is not at hand, ONNX files are what there is."""
        return self.backend if self.absence is None else OnnxRuntimeBackend(threads=1)

    @cached_property
    def stand_in(self) -> str | None:
        """What to know of files that are not those that the device runs; None where they are."""
        identity = None if self.absence is None else self.tables.last()
        if identity is None or BACKENDS[identity.backend].suffix == self.compiler.suffix:
            return None
        suffix = BACKENDS[identity.backend].suffix
        return (
            f"device {identity.device} is not at hand, so that its files are ONNX in "
            f"{self.compiler.precision}; its latencies are those of {identity.backend} in "
            f"{identity.precision}: make its {suffix} of them where it is"
        )

    @cached_property
    def fingerprint(self) -> Mapping[str, str]:
        """The device's; that of its last table where it is not at hand.

        Raises:
            UserError: It is not at hand, and there is no table of it.
        """
        if self.absence is None:
            return self.backend.fingerprint()
        identity = self.tables.last()
        assert identity is not None
        return identity.fingerprint

    def unprepared(self) -> list[str]:
        """What the profile asks to be done to the device, and cannot be; a line each."""
        place = self.backend.place
        return place.preparation.unmet(place.describe(), place.name)

    def measure_whole(
        self, artifacts: Mapping[str, Sequence[Artifact]], title: str
    ) -> dict[str, list[Measurement]]:
        """Whole models by workload, in the given order; `lost` where the device is not at hand."""
        results = {}
        for workload, models in artifacts.items():
            if self.absence is not None:
                results[workload] = stored_measurements(
                    models,
                    fingerprint=self.fingerprint,
                    timing=self.timing,
                    store=self.store,
                    reason=self.absence,
                )
                continue
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
            "fingerprint": dict(self.fingerprint),
        }


def told(update: Update) -> Progress:
    """A progress bar for `latency.protocol.measure`."""
    return lambda done, total, line: update(done, f"{int(done)}/{total}: {line}")


def random_supernet(space: TransformerSpace) -> Supernet:
    """A supernet with random weights, always the same, whose subnets may have any policy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(space)
    if space.precision:
        plain, _ = supernet.build_plain(space.smallest)
        inputs = whole_inputs(plain.network(), space.default_workload)
        supernet.calibrate(list(inputs.values())[:1], rounding="nearest")
    return supernet


def random_subnets(
    lab: DeviceLab, architectures: Mapping[str, Sequence[Architecture]]
) -> dict[str, list[Artifact]]:
    """Whole subnets with random weights, which have the latency of trained ones.

    Args:
        lab: The device that they are made for.
        architectures: By workload.
    """
    supernet = random_supernet(lab.space)
    artifacts: dict[str, list[Artifact]] = {name: [] for name in architectures}
    for name, chosen in architectures.items():
        workload = lab.workloads[name]
        for arch in chosen:
            facts = {"architecture": arch.to_json(), "workload": str(workload)}
            path = lab.folder / "whole" / _file_name(lab, arch, workload)
            schemes = lab.space.schemes(arch)
            artifact = known_artifact(path, backend=lab.backend, provenance=facts, schemes=schemes)
            if artifact is None:
                network = supernet.extract(arch).network()
                feeds = whole_inputs(network, workload)
                artifact = export_network(
                    network,
                    feeds,
                    path,
                    backend=lab.backend,
                    library=lab.library,
                    provenance=facts,
                )
            artifacts[name].append(artifact)
    return artifacts


def _file_name(lab: DeviceLab, arch: Architecture, workload: Workload) -> str:
    made = f"{lab.space.digest}-{arch.key}-{str(workload).replace(',', '-')}"
    for name, version in later_versions(lab.space.schemes(arch)).items():
        made += f"-{name}-{version}"
    return f"{made}-{build_key(lab.backend)}{lab.backend.suffix}"
