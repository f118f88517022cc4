"""How a session runs models in CoreML; the loop is `latency.session`.

Part of the agent: Python 3.9, numpy and coremltools only.

The clock is `perf_counter_ns` around `MLModel.predict`: so transfers into and out of CoreML's
arrays are included, as they are in an app.

Needs macOS; written from coremltools' documentation and never run so far.
"""

from __future__ import annotations

import collections
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coremltools
import numpy as np

from latency.session import Refused


class CoreMLRuntime:
    """CoreML with chosen compute units; see `latency.session.Runtime`."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        if platform.system() != "Darwin":
            raise Refused(f"CoreML runs on macOS, and this is {platform.system()}; take a Mac")
        self.units = getattr(coremltools.ComputeUnit, request["compute_units"])
        self.plans: list[dict[str, Any]] = []

    def load(self, path: Path, inputs: Mapping[str, Any]) -> CoreMLModel:
        """See `Runtime`; also asks CoreML where it will run each operation."""
        model = coremltools.models.MLModel(str(path), compute_units=self.units)
        self.plans.append(compute_plan(model, self.units))
        return CoreMLModel(model, inputs)

    def facts(self) -> dict[str, Any]:
        """See `Runtime`: version, compute units, and the plans of the models, as loaded."""
        return {
            "coremltools": coremltools.__version__,
            "compute_units": self.units.name,
            "compute_plans": self.plans,
            "io": "inputs and outputs in numpy arrays, hot cache",
        }


class CoreMLModel:
    """A loaded ML program; see `latency.session.Loaded`."""

    def __init__(self, model: Any, inputs: Mapping[str, Any]) -> None:
        self.model = model
        names: dict[str, str] = json.loads(model.user_defined_metadata["ports"])
        # CoreML has no int64
        self.inputs = {
            names[name]: value.astype(np.int32) if value.dtype == np.int64 else value
            for name, value in inputs.items()
        }
        results = model.predict(self.inputs)
        ports = {feature: port for port, feature in names.items()}
        self.outputs: Mapping[str, Any] = {
            ports[feature]: value for feature, value in results.items()
        }

    def time_run(self) -> int:
        """See `latency.session.Loaded`."""
        start = time.perf_counter_ns()
        self.model.predict(self.inputs)
        return time.perf_counter_ns() - start


def compute_plan(model: Any, units: Any) -> dict[str, dict[str, int]]:
    """Where CoreML means to run the operations of a model.

    Returns:
        The number of operations by kind of device (`MLNeuralEngineComputeDevice`, ...) and
        operator.
    """
    plan = coremltools.models.compute_plan.MLComputePlan.load_from_path(
        path=model.get_compiled_model_path(), compute_units=units
    )
    devices: dict[str, collections.Counter[str]] = {}
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:  # constants run nowhere
            continue
        device = type(usage.preferred_compute_device).__name__
        devices.setdefault(device, collections.Counter())[operation.operator_name] += 1
    return {device: dict(operators) for device, operators in devices.items()}
