"""CoreML: converts on any machine, runs on a Mac."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.anchor import ANCHOR_LAYERS
from latency.artifact import Artifact
from latency.backend import Samples
from latency.database import storage_errors
from latency.place import Place, ThisHost, checked
from latency.timing import TimingConfig
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from supernet.parts import Network

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2}
"""Allowed |output - fp32 reference| of a network, in units of 1 + |reference|."""
COMPUTE_UNITS = {
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu-and-gpu": "CPU_AND_GPU",
    "cpu-and-ne": "CPU_AND_NE",
}
TARGETS = {"mac": "macOS15", "iphone": "iOS18"}
"""Oldest system that a model is converted for."""
GET_IT = "pip install 'elastic-nas[coreml]'"


class CoreMLBackend:
    """An ML program (`.mlpackage`), which CoreML runs on CPU, GPU or Neural Engine."""

    name = "coreml"
    suffix = ".mlpackage"
    precisions = tuple(TOLERANCES)

    def __init__(
        self,
        *,
        compute_units: str = "all",
        precision: str = "fp16",
        target: str = "mac",
        place: Place | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            compute_units: `all`, `cpu`, `cpu-and-gpu` or `cpu-and-ne`: what CoreML may use.
            precision: `fp16` or `fp32`; the Neural Engine computes in fp16 only.
            target: `mac` or `iphone`: whose system the model is converted for.
            place: Where sessions run; None is this host.

        Raises:
            UserError: An option is not one of these.
        """
        for name, value, known in (
            ("compute_units", compute_units, COMPUTE_UNITS),
            ("precision", precision, TOLERANCES),
            ("target", target, TARGETS),
        ):
            if value not in tuple(known):  # which may be asked about a list, too
                raise UserError(f"option {name} {value!r} of coreml: use {', '.join(known)}")
        self.compute_units = compute_units
        self.precision = precision
        self.target = target
        self.tolerance = TOLERANCES[precision]
        self.place = place or ThisHost()

    def missing(self) -> str | None:
        """Whether coremltools is here and there, and there is a Mac; see `DeviceBackend`."""
        if self.target == "iphone":
            return (
                "no agent can run on an iPhone: measure a Mac (device mac), or convert for it and "
                "open the .mlpackage in Xcode, whose performance report runs on a connected phone"
            )
        if importlib.util.find_spec("coremltools") is None:
            return f"coremltools, which converts, is not installed here; {GET_IT}"
        try:
            system = checked(self.place, "coremltools")["platform"]
        except UserError as error:
            return str(error)
        if system != "darwin":
            return (
                f"CoreML runs on macOS, and {self.place.name} is {system}; measure on a Mac, from "
                "here over SSH"
            )
        return None

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, runtime and its options; see `DeviceBackend`."""
        device = checked(self.place, "coremltools")
        return {
            **device["fingerprint"],
            **self.build_facts(),
            "runtime": f"coremltools {device['packages']['coremltools']}",
            "compute_units": self.compute_units,
        }

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Its options, as keys of a device profile, from what `fingerprint` once said.

        Raises:
            KeyError, ValueError: It said no such thing.
        """
        targets = {system: target for target, system in TARGETS.items()}
        return {
            "options": {
                "compute_units": fingerprint["compute_units"],
                "precision": fingerprint["precision"],
                "target": targets[fingerprint["target"]],
            }
        }

    def build_facts(self) -> Mapping[str, str]:
        """Converter, precision and the system that it converts for."""
        return {
            "format": f"mlprogram, coremltools {_version()}",
            "precision": self.precision,
            "target": TARGETS[self.target],
        }

    def compile(
        self,
        network: Network,
        feeds: Mapping[str, Tensor],
        path: Path,
        *,
        library: GraphLibrary,
        facts: Mapping[str, object],
    ) -> None:
        """Convert the network for the shapes of `feeds`; see `DeviceBackend`.

        The package says in its metadata `ports` which feature is which port.

        Raises:
            UserError: coremltools is missing or refuses the network, an input is empty (CoreML has
                no empty tensors), or the disk is full.
        """
        for name, value in feeds.items():
            if not value.numel():
                raise UserError(
                    f"CoreML has no empty tensors, and {name} has shape {tuple(value.shape)}; "
                    "give the workload a `past` of 1 or more"
                )
        model = self._convert(network, feeds)
        description = model.get_spec().description
        features = (*description.input, *description.output)
        ports = (*network.inputs, *network.outputs)
        names = {port.name: one.name for port, one in zip(ports, features, strict=True)}
        metadata = model.user_defined_metadata
        metadata["ports"] = json.dumps(names)
        metadata["facts"] = json.dumps(dict(facts))
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                partial = Path(folder) / path.name
                model.save(str(partial))
                if path.exists():
                    shutil.rmtree(path)
                partial.replace(path)

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The anchor as an ML program; see `DeviceBackend`."""
        from latency.anchor_network import compile_anchor

        return compile_anchor(self, folder, layers)

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: CoreML refused a model or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: There is no Mac, or it has no coremltools.
        """
        if lacking := self.missing():
            raise UserError(lacking)
        request: dict[str, Any] = {
            "runtime": "coreml",
            "threads": 1,
            "compute_units": COMPUTE_UNITS[self.compute_units],
        }
        return self.place.run(request, models, timing)

    def close(self) -> None:
        """See `DeviceBackend`."""
        self.place.close()

    def _convert(self, network: Network, feeds: Mapping[str, Tensor]) -> Any:
        with warnings.catch_warnings():
            # On versions of torch that it was not tried with, and on its own calls of torch
            warnings.simplefilter("ignore")
            try:
                import coremltools
            except ImportError as error:
                raise UserError(f"coremltools cannot be imported ({error}); {GET_IT}") from None
            from latency.program import export_program

            precisions = coremltools.precision
            half = self.precision == "fp16"
            try:
                return coremltools.convert(
                    export_program(network, feeds).run_decompositions({}),
                    convert_to="mlprogram",
                    minimum_deployment_target=getattr(coremltools.target, TARGETS[self.target]),
                    compute_precision=precisions.FLOAT16 if half else precisions.FLOAT32,
                    compute_units=coremltools.ComputeUnit[COMPUTE_UNITS[self.compute_units]],
                    skip_model_load=True,
                )
            except (ValueError, RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(f"coremltools cannot convert the network: {reason}") from None


def _version() -> str:
    try:
        return importlib.metadata.version("coremltools")
    except importlib.metadata.PackageNotFoundError:
        return "none"
