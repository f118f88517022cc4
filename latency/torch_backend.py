"""PyTorch, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import importlib.metadata
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.anchor import ANCHOR_LAYERS
from latency.artifact import Artifact
from latency.backend import Samples
from latency.files import write_bytes
from latency.place import Place, ThisHost, checked
from latency.timing import TimingConfig
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from supernet.parts import Network

TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Allowed |output - fp32 reference| of a network, in units of 1 + |reference|."""
LOAD_S = 10.0
"""Longest that loading one program may take; PyTorch itself starts slowly."""
COMPILE_S = 120.0
"""Longest that `torch.compile` of one model may take."""


class TorchBackend:
    """PyTorch: a `.pt2` program, run eagerly or through `torch.compile`.

    The file is what `torch.export` saves. It runs with the shapes that it was exported for.
    """

    name = "torch"
    suffix = ".pt2"
    precisions = tuple(TOLERANCES)

    def __init__(
        self,
        *,
        threads: int = 1,
        device: str = "cpu",
        mode: str = "eager",
        precision: str = "fp32",
        cuda_graph: bool = True,
        place: Place | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            threads: Intra-op threads, at least 1.
            device: `cpu` or `cuda`.
            mode: `eager` or `compile`.
            precision: `fp32`, `fp16` or `bf16`: weights and activations; inputs and outputs stay
                fp32.
            cuda_graph: Whether a GPU replays the kernels of a run as one graph.
            place: Where sessions run; None is this host.

        Raises:
            UserError: An option is not one of these.
        """
        for name, value, known in (
            ("device", device, ("cpu", "cuda")),
            ("mode", mode, ("eager", "compile")),
            ("precision", precision, tuple(TOLERANCES)),
            ("cuda_graph", cuda_graph, (True, False)),
        ):
            if value not in known:
                listed = ", ".join(str(one).lower() for one in known)
                raise UserError(f"option {name} {value!r} of the torch backend: use {listed}")
        self.threads = threads
        self.device = device
        self.mode = mode
        self.precision = precision
        self.cuda_graph = cuda_graph and device == "cuda"
        self.tolerance = TOLERANCES[precision]
        self.place = place or ThisHost()

    def missing(self) -> str | None:
        """Whether PyTorch is there, and a GPU where one is wanted; see `DeviceBackend`."""
        try:
            checked(self.place, "torch", threads=self.threads, gpu=self.device == "cuda")
        except UserError as error:
            return str(error)
        return None

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, GPU, runtime and its options; see `DeviceBackend`."""
        device = checked(self.place, "torch", threads=self.threads)
        facts = {
            **device["fingerprint"],
            "runtime": f"torch {device['packages']['torch']}",
            "threads": str(self.threads),
            "compute": self.device,
            "mode": self.mode,
            "precision": self.precision,
        }
        if self.device == "cuda":
            facts |= {"cuda_graph": "on" if self.cuda_graph else "off", **device["gpu"]}
        return facts

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Its options, as keys of a device profile, from what `fingerprint` once said.

        Raises:
            KeyError, ValueError: It said no such thing.
        """
        told = {"device": "compute", "mode": "mode", "precision": "precision"}
        options: dict[str, Any] = {name: fingerprint[fact] for name, fact in told.items()}
        return {"options": {**options, "cuda_graph": fingerprint.get("cuda_graph") == "on"}}

    def build_facts(self) -> Mapping[str, str]:
        """Precision and version: a program of another version may be of other operators."""
        version = importlib.metadata.version("torch")
        return {"format": f"torch.export {version}", "precision": self.precision}

    def compile(
        self,
        network: Network,
        feeds: Mapping[str, Tensor],
        path: Path,
        *,
        library: GraphLibrary,
        facts: Mapping[str, object],
    ) -> None:
        """Write the network as `.pt2`, with the names of its ports; see `DeviceBackend`."""
        import torch

        from latency.program import export_program

        ports = {
            "inputs": [port.name for port in network.inputs],
            "outputs": [port.name for port in network.outputs],
        }
        extra = {"ports.json": json.dumps(ports), "facts.json": json.dumps(dict(facts))}
        content = io.BytesIO()
        program = export_program(network, feeds, self.precision)
        torch.export.save(program, content, extra_files=extra)
        write_bytes(path, content.getvalue())

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The anchor as `.pt2`; see `DeviceBackend`."""
        from latency.anchor_network import compile_anchor

        return compile_anchor(self, folder, layers)

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: PyTorch refused a model or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: PyTorch is not there, or no GPU that it can use.
        """
        request: dict[str, Any] = {
            "runtime": "torch",
            "threads": self.threads,
            "device": self.device,
            "mode": self.mode,
            "cuda_graph": self.cuda_graph,
        }
        loading_s = (COMPILE_S if self.mode == "compile" else LOAD_S) * len(models)
        return self.place.run(request, models, timing, loading_s=loading_s)

    def close(self) -> None:
        """See `DeviceBackend`."""
        self.place.close()
