"""onnxruntime on this host: every session in a fresh process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from latency import host_facts
from latency.anchor import ANCHOR_LAYERS, build_anchor
from latency.artifact import Artifact
from latency.backend import Samples
from latency.local_session import check_threads, local_session
from latency.timing import TimingConfig
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from supernet.parts import Network


PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}
"""Packages whose onnxruntime has a provider; CoreML is in that for macOS."""


class OnnxRuntimeBackend:
    """onnxruntime with explicit threads, one provider and bound memory.

    Spinning is off unless asked for. With one thread it does not matter. With two on two cores,
    spinning was 10 to 20 % faster while a core was mostly free, and 2 to 3 times slower (15 to
    24 ms against 7) as soon as other processes wanted both: the repeatable choice is the
    default. The deployed session has to make the same one (`session.intra_op.allow_spinning`).
    """

    name = "onnxruntime"
    suffix = ".onnx"
    tolerance = 1e-4

    def __init__(
        self,
        *,
        threads: int,
        provider: str = "CPUExecutionProvider",
        options: Mapping[str, object] | None = None,
        spinning: bool = False,
        affinity: Sequence[int] | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            threads: Intra-op threads, at least 1.
            provider: Execution provider, asserted in every session.
            options: The provider's own options, as onnxruntime names them.
            spinning: Whether idle threads spin.
            affinity: CPUs to pin a session to; None leaves the choice to the scheduler.

        Raises:
            UserError: More threads than CPUs, or CPUs that are not available.
        """
        check_threads(threads)
        cpus = host_facts.available_cpus()
        if affinity is not None and not set(affinity) <= set(cpus):
            raise UserError(f"affinity {list(affinity)} is not within the available CPUs {cpus}")
        self.threads = threads
        self.provider = provider
        self.options = {name: _option(value) for name, value in (options or {}).items()}
        self.spinning = spinning
        self.affinity = None if affinity is None else sorted(affinity)

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, runtime and its options; the same until one of them changes."""
        facts = {
            **host_facts.host_fingerprint(self.affinity),
            "runtime": f"onnxruntime {version('onnxruntime')}",
            "provider": self.provider,
            "threads": str(self.threads),
            "spinning": "on" if self.spinning else "off",
        }
        if self.options:
            facts["provider_options"] = json.dumps(self.options, sort_keys=True)
        return facts

    def missing(self) -> str | None:
        """Whether onnxruntime has the provider; see `DeviceBackend`."""
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if self.provider in available:
            return None
        package = PACKAGES.get(self.provider)
        get_it = f"pip install {package} in place of onnxruntime" if package else "choose another"
        return f"{self.provider} is not in this onnxruntime ({', '.join(available)}); {get_it}"

    def build_facts(self) -> Mapping[str, str]:
        """Opset and precision: an ONNX file is the same for every provider."""
        from latency.export import ONNX_FACTS

        return ONNX_FACTS

    def compile(
        self,
        network: Network,
        feeds: Mapping[str, Tensor],
        path: Path,
        *,
        library: GraphLibrary,
        facts: Mapping[str, object],
    ) -> None:
        """Write the network as ONNX, for any shapes; see `DeviceBackend`."""
        from latency.export import write_network

        write_network(network, path, library=library, facts=facts)

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The anchor as ONNX; see `DeviceBackend`."""
        return build_anchor(folder, layers)

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: onnxruntime refused a model, ran no node of it on the provider, or
                its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: The provider is not in this onnxruntime.
        """
        options = {
            "threads": self.threads,
            "provider": self.provider,
            "options": self.options,
            "spinning": self.spinning,
            "affinity": self.affinity,
        }
        return local_session("latency.session", options, models, timing)


def _option(value: object) -> str:
    """A provider's option as onnxruntime takes it: `True` and `true` of YAML are `1`."""
    return str(int(value)) if isinstance(value, bool) else str(value)
