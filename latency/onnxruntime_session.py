"""How a session runs models in onnxruntime; the loop is `latency.session`.

Part of the agent: Python 3.9, numpy and onnxruntime only.

Timing: `perf_counter_ns` around each `run_with_iobinding`, inputs and outputs bound beforehand
to the memory of the provider. So: transfers excluded, no allocation of outputs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from latency import host_facts
from latency.session import Refused, Rejected

CPU = "CPUExecutionProvider"
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}
"""Packages whose onnxruntime has a provider; CoreML is in that for macOS."""
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX file of one `Identity`, to load a provider with."""


WITHOUT_VNNI = {"session.x64quantprecision": "1"}
"""Options for x86 processors without VNNI, whose kernels of unsigned by signed 8-bit integers add
up pairs of products in 16 bits, which overflow. Weights become unsigned, and sums exact; with VNNI
that would only be slower."""


def session_config(spinning: bool) -> dict[str, str]:
    """Options of sessions, deployed ones too, beside `WITHOUT_VNNI`."""
    return {"session.intra_op.allow_spinning": "1" if spinning else "0"}


def local_config(spinning: bool) -> dict[str, str]:
    """Options of a session on this host."""
    exact = {} if "_vnni" in host_facts.cpuinfo() else WITHOUT_VNNI
    return {**session_config(spinning), **exact}


class OnnxRuntime:
    """onnxruntime with one provider, which must really take nodes."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.config = local_config(request["spinning"])
        self.nodes: list[dict[str, int]] = []
        provider, available = request["provider"], onnxruntime.get_available_providers()
        if provider not in available:
            package = PACKAGES.get(provider)
            mend = f"`pip install {package}` in place of onnxruntime, or " if package else ""
            raise Refused(
                f"{provider} is not in onnxruntime {onnxruntime.__version__}, which has "
                f"{', '.join(available)}; {mend}choose another in the device profile"
            )
        # Only a look: a mistake in the profile is told as such, not by every model
        if provider != CPU and (request["options"] or not request["models"]):
            self._try_provider()

    def _try_provider(self) -> None:
        """Load the provider with its options.

        Raises:
            Refused: It does not load, or does not know one of them.
        """
        provider, options = self.request["provider"], self.request["options"]
        reason = self._refusal(options)
        if reason is None:
            return
        if options and self._refusal({}) is None:
            given = ", ".join(f"{name}: {value}" for name, value in options.items())
            raise Refused(
                f"{provider} does not take the options {given} ({reason}); correct or remove them "
                "in the device profile"
            )
        raise Refused(
            f"{provider} does not load ({reason}); install what it needs, or choose another in "
            "the device profile"
        )

    def _refusal(self, options: Mapping[str, str]) -> str | None:
        """Why the provider does not load with some options; None if it does."""
        provider = self.request["provider"]
        try:
            session = self._open(IDENTITY, options)
        except Exception as error:  # whatever the provider throws
            return _reason(error)
        if session.get_providers()[0] != provider:
            return "it says no more"
        known = session.get_provider_options().get(provider)
        unknown = [name for name in options if known and name not in known]
        if unknown:  # of those that tell what they have
            return f"{unknown[0]} is not one of {', '.join(sorted(known))}"
        return None

    def _open(self, model: bytes, options: Mapping[str, str]) -> Any:
        return onnxruntime.InferenceSession(
            model,
            sess_options=self._options(),
            providers=[(self.request["provider"], dict(options))],
            enable_fallback=0,  # else its error is printed, and the CPU takes all
        )

    def load(self, path: Path, inputs: Mapping[str, Any]) -> OnnxModel:
        """See `Runtime`.

        Raises:
            Rejected: The provider did not load, or took no node.
        """
        provider = self.request["provider"]
        session = self._open(path.read_bytes(), self.request["options"])
        # onnxruntime falls back to the CPU in silence, for the whole model or node by node
        if session.get_providers()[0] != provider:
            raise Rejected(f"{provider} did not load; {session.get_providers()}")
        nodes: dict[str, int] = {}
        if hasattr(session, "get_provider_graph_assignment_info"):
            for part in session.get_provider_graph_assignment_info():
                nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
        elif provider != CPU:
            raise Rejected(
                f"onnxruntime {onnxruntime.__version__} does not tell which nodes {provider} "
                "takes; install a newer one"
            )
        if nodes and provider not in nodes:
            raise Rejected(f"{provider} takes no node of this model; {', '.join(nodes)} took all")
        self.nodes.append(nodes)
        return OnnxModel(session, provider, inputs)

    def facts(self) -> dict[str, Any]:
        """See `Runtime`: version, provider, and how many nodes went to which provider."""
        return {
            "provider": self.request["provider"],
            "spinning": self.request["spinning"],
            "session_config": self.config,
            "provider_options": self.request["options"],
            "nodes": self.nodes,
            "onnxruntime": onnxruntime.__version__,
            "io": f"inputs and outputs bound in {_memory(self.request['provider'])} memory, "
            "hot cache",
        }

    def _options(self) -> Any:
        result = onnxruntime.SessionOptions()
        result.intra_op_num_threads = self.request["threads"]
        result.inter_op_num_threads = 1
        result.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        result.log_severity_level = 3
        for name, value in self.config.items():
            result.add_session_config_entry(name, value)
        # Models share the process: the threads of one must not spin on into the block of the next
        result.add_session_config_entry("session.force_spinning_stop", "1")
        result.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return result


class OnnxModel:
    """A session with bound inputs and outputs; see `Loaded`."""

    def __init__(self, session: Any, provider: str, inputs: Mapping[str, Any]) -> None:
        self.session = session
        names = [output.name for output in session.get_outputs()]
        self.outputs: Mapping[str, Any] = dict(zip(names, session.run(None, dict(inputs))))
        self.bound = session.io_binding()
        memory = _memory(provider)

        def place(value: Any) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), memory, 0)

        # Keep the OrtValues: a binding does not own the memory behind them
        self.values = [place(value) for value in (*inputs.values(), *self.outputs.values())]
        for name, value in zip(inputs, self.values):
            self.bound.bind_ortvalue_input(name, value)
        for name, value in zip(names, self.values[len(inputs) :]):
            self.bound.bind_ortvalue_output(name, value)

    def time_run(self) -> int:
        """See `Loaded`."""
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(self.bound)
        return time.perf_counter_ns() - start


def _reason(error: Exception) -> str:
    """What an error of onnxruntime says, without the place in its sources."""
    text = re.sub(r"^\S+:\d+ .*?\)(?: const)? ", "", " ".join(str(error).split()))
    return text[:200]


def _memory(provider: str) -> str:
    """Where inputs and outputs lie: on the GPU for the providers that compute there."""
    return "cuda" if provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider") else "cpu"
