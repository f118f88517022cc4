"""How a session runs models in PyTorch; the loop is `latency.session`.

Part of the agent: Python 3.9, numpy and PyTorch only.

On a CPU the clock is `perf_counter_ns` around one call; on a GPU it is CUDA events
(`latency.cuda_clock`). Inputs lie on the device beforehand, so transfers are excluded.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from latency import nvidia
from latency.cuda_clock import CudaClock, capture
from latency.session import Refused


class TorchRuntime:
    """PyTorch on one device; see `latency.session.Runtime`."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.device: str = request["device"]
        self.mode: str = request["mode"]
        self.cuda_graph: bool = request["cuda_graph"]
        self.models: list[TorchModel] = []
        if self.device != "cpu" and not torch.cuda.is_available():
            raise Refused(
                f"torch {torch.__version__} sees no CUDA device; `nas doctor` says what is missing"
            )
        # No pool of compiling processes: they would outlive the compilation and disturb the clock
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        torch.set_num_threads(request["threads"])
        torch.set_num_interop_threads(1)
        self.before = nvidia.state() if self.device == "cuda" else {}

    def load(self, path: Path, inputs: Mapping[str, Any]) -> TorchModel:
        """See `Runtime`; compiles and captures what the request asks for."""
        extra = {"ports.json": ""}
        program = torch.export.load(path, extra_files=extra)
        if self.device != "cpu":
            program = move_to_device_pass(program, self.device)
        # Our own shapes: checking them again at every call would be timed too
        function: Callable[..., Any] = program.module(check_guards=False)
        if self.mode == "compile":
            function = torch.compile(function, fullgraph=True, dynamic=False)
        ports = json.loads(extra["ports.json"])
        tensors = [torch.from_numpy(inputs[name]).to(self.device) for name in ports["inputs"]]
        clock = CudaClock() if self.device == "cuda" else None
        model = TorchModel(function, tensors, ports["outputs"], clock)
        if self.cuda_graph:
            model.run = capture(model.run)
        self.models.append(model)
        return model

    def facts(self) -> dict[str, Any]:
        """See `Runtime`: version, options, and the GPU before and after."""
        facts: dict[str, Any] = {
            "torch": torch.__version__,
            "device": self.device,
            "mode": self.mode,
            "io": f"inputs in {self.device} memory, hot cache",
        }
        if self.device == "cuda":
            facts |= {
                "cuda": torch.version.cuda,
                "cuda_graph": self.cuda_graph,
                "gpu_before": self.before,
                "gpu_after": nvidia.state(),
                "wall_ns": [model.clock.median_wall_ns() for model in self.models if model.clock],
            }
        return facts


class TorchModel:
    """A program with its inputs on the device; see `latency.session.Loaded`."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        outputs: Sequence[str],
        clock: CudaClock | None,
    ) -> None:
        self.clock = clock
        self.run: Callable[[], Any] = lambda: function(*inputs)
        with torch.inference_mode():
            results = self.run()
        self.outputs: Mapping[str, Any] = {
            name: value.cpu().numpy() for name, value in zip(outputs, results)
        }

    def time_run(self) -> int:
        """See `latency.session.Loaded`; by CUDA events where there is a GPU."""
        with torch.inference_mode():
            if self.clock is not None:
                return self.clock.time(self.run)
            start = time.perf_counter_ns()
            self.run()
            return time.perf_counter_ns() - start
