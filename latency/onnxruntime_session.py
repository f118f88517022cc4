"""How a session runs models in onnxruntime; the loop is `latency.session`.

Part of the agent: Python 3.9, numpy and onnxruntime only.

Timing: `perf_counter_ns` around each `run_with_iobinding`, inputs and outputs bound beforehand
to the memory of the provider. So: transfers excluded, no allocation of outputs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from latency.session import Refused, Rejected

CPU = "CPUExecutionProvider"
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}
"""Packages whose onnxruntime has a provider; CoreML is in that for macOS."""


class OnnxRuntime:
    """onnxruntime with one provider, which must really take nodes."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.nodes: list[dict[str, int]] = []
        provider, available = request["provider"], onnxruntime.get_available_providers()
        if provider not in available:
            package = PACKAGES.get(provider)
            mend = f"`pip install {package}` in place of onnxruntime, or " if package else ""
            raise Refused(
                f"{provider} is not in onnxruntime {onnxruntime.__version__}, which has "
                f"{', '.join(available)}; {mend}choose another in the device profile"
            )

    def load(self, path: Path, inputs: Mapping[str, Any]) -> OnnxModel:
        """See `Runtime`.

        Raises:
            Rejected: The provider did not load, or took no node.
        """
        provider = self.request["provider"]
        session = onnxruntime.InferenceSession(
            path.read_bytes(),
            sess_options=self._options(),
            providers=[(provider, self.request["options"])],
        )
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
        spinning = "1" if self.request["spinning"] else "0"
        result.add_session_config_entry("session.intra_op.allow_spinning", spinning)
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


def _memory(provider: str) -> str:
    """Where inputs and outputs lie: on the GPU for the providers that compute there."""
    return "cuda" if provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider") else "cpu"
