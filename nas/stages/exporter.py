"""Export one subnet: write its files, compare it with the supernet, judge it in the runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latency.artifact import Artifact, build_artifact
from latency.chains import whole_inputs
from latency.cpu_session import cpu_session
from latency.export import write_network
from latency.onnx_form import ONNX_FACTS
from latency.policy import MEAN_TOLERANCE, tolerance
from nas.config import QUALITIES
from nas.run import Run
from nas.stages.device_lab import DeviceLab
from nas.stages.known_table import load_predictors
from nas.stages.search import Objectives
from nas.stages.supernet import TrainedSupernet
from search_spaces import Architecture
from supernet.parts import Network

TOLERANCE = 1e-3
"""Allowed |export - supernet| of a logit, in units of 1 + |supernet|; 8-bit inputs are allowed
more (`latency.policy.TOLERANCES`)."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One subnet on disk."""

    name: str
    architecture: Architecture
    artifacts: Mapping[str, Artifact]
    """The same file with example inputs of each workload."""
    max_abs_difference: float
    """Largest difference of its outputs from those of the subnet inside the supernet."""
    test: Mapping[str, float]
    """Metrics on the test split through the runtime."""


class Exporter:
    """Exports subnets of a run, into a folder."""

    def __init__(self, run: Run, supernet: TrainedSupernet, folder: Path) -> None:
        self.run = run
        self.supernet = supernet
        self.folder = folder
        self.lab = DeviceLab(run, supernet.space)
        self.objectives = Objectives(run, supernet.space, load_predictors(run, supernet.space))

    def path(self, name: str) -> Path:
        """Where a subnet is written."""
        return self.folder / f"{name}.onnx"

    def value(self, arch: Architecture, objective: str) -> float:
        """Any objective of an architecture: validation quality, predicted latency, or a cost."""
        if objective in QUALITIES[self.run.config.task.kind]:
            return self.supernet.metrics([arch], "validation")[0][objective]
        return float(self.objectives.cost([arch], objective)[0])

    def export(self, name: str, arch: Architecture) -> Exported:
        """Write `NAME.onnx`, compare it with the supernet, and judge it on the test split.

        Where the device runs another kind of file, those lie beside it, one per workload.
        """
        plain = self.supernet.model.extract(arch)
        network = plain.network()
        path = self.path(name)
        provenance = {"architecture": arch.to_json(), "supernet": self.supernet.hash}
        library = self.lab.library
        write_network(network, path, library=library, facts={**provenance, **ONNX_FACTS})
        backend = self.lab.compiler
        facts = {**provenance, **backend.build_facts()}
        artifacts: dict[str, Artifact] = {}
        for workload, call in self.lab.workloads.items():
            feeds = whole_inputs(network, call)
            model = self._model_path(name, workload)
            if model != path:
                backend.compile(network, feeds, model, library=library, facts=facts)
            artifacts[workload] = build_artifact(
                model,
                inputs={key: value.numpy() for key, value in feeds.items()},
                outputs=self._reference(arch, network, feeds),
                tolerance=max(backend.tolerance, tolerance(self.lab.space.schemes(arch))),
                provenance={**facts, "workload": str(call)},
                # Not beside the file: there may be one of that name that is the user's own.
                feeds=self.lab.folder / "fronts" / f"{name}.{self.run.device}.{workload}.npz",
            )
        test = dict(self._test_metrics(path, arch, network))
        difference = test.pop("max_abs_difference")
        return Exported(
            name=name,
            architecture=arch,
            artifacts=artifacts,
            max_abs_difference=difference,
            test=test,
        )

    def _model_path(self, name: str, workload: str) -> Path:
        """The file that the device runs under a workload: an ONNX file serves them all."""
        suffix = self.lab.compiler.suffix
        if suffix != ".onnx" and len(self.lab.workloads) > 1:
            suffix = f".{workload}{suffix}"
        return self.folder / f"{name}{suffix}"

    def _reference(
        self, arch: Architecture, network: Network, feeds: Mapping[str, Tensor]
    ) -> dict[str, NDArray[Any]]:
        """Outputs of the subnet as it lies in the supernet."""
        model = self.supernet.model
        with torch.inference_mode():
            results = model.outputs(arch, *feeds.values())
        return {
            port.name: result.numpy() for port, result in zip(network.outputs, results, strict=True)
        }

    def _test_metrics(
        self, path: Path, arch: Architecture, network: Network
    ) -> Mapping[str, float]:
        """What `_judge` says of this very file; kept in the store, so that it is judged once."""
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        split = f"test, onnxruntime, {sha256[:16]}"
        known = self.run.store.get(self.supernet.stored_as, arch, split)
        if known is None:
            difference, metrics = self._judge(path, arch, network)
            known = {**metrics, "max_abs_difference": difference}
            self.run.store.add(self.supernet.stored_as, split, {arch: known})
        return known

    def _judge(
        self, path: Path, arch: Architecture, network: Network
    ) -> tuple[float, dict[str, float]]:
        """Difference from the supernet, and the test metrics, in onnxruntime on this host."""
        session = cpu_session(path, self.lab.profile.threads)
        worst, allowed = 0.0, max(TOLERANCE, tolerance(self.lab.space.schemes(arch)))

        @torch.inference_mode()
        def forward(inputs: Tensor) -> NDArray[Any]:
            nonlocal worst
            logits: NDArray[Any] = session.run(["logits"], batch_feeds(network, inputs))[0]
            expected = self.supernet.model(inputs, arch).numpy()
            worst = max(worst, float(np.abs(logits - expected).max()))
            relative = np.abs(logits - expected) / (1 + np.abs(expected))
            if not (relative.max() <= allowed and relative.mean() <= MEAN_TOLERANCE):
                raise RuntimeError(f"{path} differs from the supernet by {worst}: a wrong export")
            return logits

        metrics = self.supernet.task.metrics(forward, "test")
        return worst, metrics


def batch_feeds(network: Network, inputs: Tensor) -> dict[str, NDArray[Any]]:
    """Inputs of a batch of data, with an empty key/value cache where the network takes one."""
    first, *cache = network.inputs
    free = {"batch": inputs.shape[0], "past": 0}
    feeds: dict[str, NDArray[Any]] = {first.name: inputs.numpy()}
    for port in cache:
        shape = [free[size] if isinstance(size, str) else size for size in port.shape]
        feeds[port.name] = np.zeros(shape, dtype=np.float32)
    return feeds
