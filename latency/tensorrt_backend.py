"""TensorRT on an NVIDIA GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.anchor import ANCHOR_LAYERS, anchor_values, build_anchor
from latency.artifact import Artifact, build_artifact
from latency.backend import BackendError, Samples
from latency.files import write_bytes
from latency.place import Place, ThisHost, checked
from latency.timing import TimingConfig
from latency.user_cache import user_cache
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from supernet.parts import Network

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2}
"""Allowed |output - fp32 reference| of a network, in units of 1 + |reference|."""


class TensorRTBackend:
    """The native interface of `tensorrt` or `tensorrt_rtx`: a serialized engine, CUDA graph on.

    An engine is of one kind of GPU, so it is built where it runs. It is built once: engines are
    kept in the user's cache folder under all that decides what the builder makes, since building
    again may choose other kernels.
    """

    name = "tensorrt"
    suffix = ".engine"
    precisions = tuple(TOLERANCES)

    def __init__(
        self,
        *,
        library: str = "tensorrt",
        precision: str = "fp32",
        fp32_parts: Sequence[str] = (),
        tf32: bool = False,
        cuda_graph: bool = True,
        place: Place | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            library: `tensorrt` or `tensorrt_rtx`.
            precision: `fp32` or `fp16`, of weights and activations.
            fp32_parts: Parts that stay fp32, by name or pattern: `head`, `attention.*`.
            tf32: Whether fp32 matrix products may round their inputs to 10 bits of mantissa.
            cuda_graph: Whether the kernels of a run are replayed as one graph.
            place: Where engines are built and sessions run; None is this host.

        Raises:
            UserError: An option is not one of these.
        """
        if precision not in tuple(TOLERANCES):
            raise UserError(f"option precision {precision!r} of {library}: use fp32, fp16")
        for name, value in (("tf32", tf32), ("cuda_graph", cuda_graph)):
            if not isinstance(value, bool):
                raise UserError(f"option {name} {value!r} of {library}: use true, false")
        listed = isinstance(fp32_parts, list | tuple)
        if not listed or not all(isinstance(one, str) for one in fp32_parts):
            raise UserError(f"option fp32_parts {fp32_parts!r} of {library}: give a list of names")
        self.library = library
        self.precision = precision
        self.fp32_parts = tuple(fp32_parts)
        self.tf32 = tf32
        self.cuda_graph = cuda_graph
        self.tolerance = TOLERANCES[precision]
        self.place = place or ThisHost()

    def missing(self) -> str | None:
        """Whether the library, PyTorch and a GPU are there; see `DeviceBackend`."""
        try:
            found = checked(self.place, self.library)
            if found["packages"]["torch"] is None:
                return (
                    f"{self.place.name} has no torch, which holds the GPU's memory in a session; "
                    "install one with CUDA (for a Jetson NVIDIA's, of its JetPack, not PyPI's)"
                )
            checked(self.place, "torch", gpu=True)
        except UserError as error:
            return str(error)
        return None

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, GPU, runtime and its options; see `DeviceBackend`."""
        device = checked(self.place, self.library)
        return {
            **device["fingerprint"],
            **self.build_facts(),
            "runtime": f"{self.library} {device['packages'][self.library]}",
            "cuda_graph": "on" if self.cuda_graph else "off",
        }

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Its options, as keys of a device profile, from what `fingerprint` once said.

        Raises:
            KeyError, ValueError: It said no such thing.
        """
        parts = fingerprint["fp32_parts"]
        return {
            "options": {
                "precision": fingerprint["precision"],
                "fp32_parts": [] if parts == "none" else parts.split(","),
                "tf32": fingerprint["tf32"] == "on",
                "cuda_graph": fingerprint["cuda_graph"] == "on",
            }
        }

    def build_facts(self) -> Mapping[str, str]:
        """Builder, precision, and the GPU that the engine is made for."""
        device = self.place.describe()
        return {
            "builder": f"{self.library} {device['packages'][self.library]}",
            "precision": self.precision,
            "fp32_parts": ",".join(self.fp32_parts) or "none",
            "tf32": "on" if self.tf32 else "off",
            **device["gpu"],
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
        """Write the network's engine for the shapes of `feeds`; see `DeviceBackend`.

        The engine has no room for `facts`: they are with its measurements.
        """
        from latency.half import nodes_of_parts, to_half

        # Its parser takes an Attention node with one output: without a cache
        model = library.assemble(network, onnx_attention=False)
        if self.precision == "fp16":
            keep = nodes_of_parts(model, network, self.fp32_parts)
            model = to_half(model, keep)
        content = model.SerializeToString(deterministic=True)
        self._engine(content, {name: tuple(value.shape) for name, value in feeds.items()}, path)

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The engine of the anchor's ONNX file, fp32 whatever the profile says."""
        source = build_anchor(folder, layers)
        path = source.path.with_suffix(self.suffix)
        values = anchor_values(layers)
        self._engine(source.path.read_bytes(), {"x": values.input.shape}, path)
        return build_artifact(
            path,
            inputs={"x": values.input},
            outputs={"y": values.output},
            tolerance=source.tolerance,
            provenance={**source.provenance, **self.build_facts(), "precision": "fp32"},
        )

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: TensorRT refused an engine or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: TensorRT is not there, or no GPU that it can use.
        """
        request: dict[str, Any] = {
            "runtime": "tensorrt",
            "threads": 1,
            "library": self.library,
            "cuda_graph": self.cuda_graph,
        }
        return self.place.run(request, models, timing)

    def close(self) -> None:
        """See `DeviceBackend`."""
        self.place.close()

    def _engine(self, model: bytes, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
        listed = {name: list(shape) for name, shape in shapes.items()}
        facts = dict(self.build_facts())
        key = _digest([hashlib.sha256(model).hexdigest(), listed, facts])
        cached = user_cache("engines") / f"{key}.engine"
        if not cached.exists():
            # Timings are of one GPU, one driver and one version of the library
            timings = _digest([facts["builder"], self.place.describe()["gpu"]])
            request = {"library": self.library, "shapes": listed, "tf32": self.tf32}
            try:
                engine = self.place.build(request, model, timings)
            except BackendError as error:
                raise UserError(f"{self.library} could not build {path.name}: {error}") from None
            write_bytes(cached, engine)
        write_bytes(path, cached.read_bytes())


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
