"""How a session runs TensorRT engines; the loop is `latency.session`.

Part of the agent: Python 3.9, numpy, TensorRT and PyTorch only.

The clock is `latency.cuda_clock`. Inputs and outputs lie in GPU memory, which PyTorch allocates, so
transfers are excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latency import nvidia
from latency.cuda_clock import CudaClock, capture
from latency.session import Refused, Rejected
from latency.tensorrt_engine import load_library, make_log


class TensorRTRuntime:
    """TensorRT on the first GPU; see `latency.session.Runtime`."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.library: str = request["library"]
        self.cuda_graph: bool = request["cuda_graph"]
        self.trt: Any = load_library(self.library)
        self.log = make_log(self.trt)
        self.models: list[TensorRTModel] = []
        if not torch.cuda.is_available():
            raise Refused(
                f"torch {torch.__version__} sees no CUDA device, and {self.library} needs one"
            )
        self.before = nvidia.state()

    def load(self, path: Path, inputs: Mapping[str, Any]) -> TensorRTModel:
        """See `Runtime`.

        Raises:
            Rejected: The engine is of another GPU or version, or does not fit the inputs.
        """
        engine = self.trt.Runtime(self.log).deserialize_cuda_engine(path.read_bytes())
        context = engine.create_execution_context() if engine is not None else None
        if context is None:
            reason = " ".join(self.log.errors[-1:]) or "no reason given"
            raise Rejected(f"{self.library} does not load the engine: {reason}")
        model = TensorRTModel(self.trt, engine, context, inputs)
        if self.cuda_graph:
            model.run = capture(model.run)
        self.models.append(model)
        return model

    def facts(self) -> dict[str, Any]:
        """See `Runtime`: version, options, and the GPU before and after."""
        return {
            self.library: self.trt.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cuda_graph": self.cuda_graph,
            "gpu_before": self.before,
            "gpu_after": nvidia.state(),
            "wall_ns": [model.clock.median_wall_ns() for model in self.models],
            "io": "inputs and outputs in cuda memory, hot cache",
        }


class TensorRTModel:
    """An engine with bound inputs and outputs; see `latency.session.Loaded`."""

    def __init__(self, trt: Any, engine: Any, context: Any, inputs: Mapping[str, Any]) -> None:
        self.engine, self.context = engine, context
        self.clock = CudaClock()
        self.bound: dict[str, Tensor] = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        for name in given:
            tensor = torch.from_numpy(inputs[name]).cuda()
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise Rejected(f"the engine takes no input {name} of shape {tuple(tensor.shape)}")
            self._bind(name, tensor)
        results = [name for name in names if name not in given]
        for name in results:
            shape = tuple(context.get_tensor_shape(name))
            dtype = torch.from_numpy(np.empty(0, trt.nptype(engine.get_tensor_dtype(name)))).dtype
            self._bind(name, torch.empty(shape, dtype=dtype, device="cuda"))
        self.run: Callable[[], Any] = self._execute
        self.run()
        torch.cuda.synchronize()
        self.outputs: Mapping[str, Any] = {name: self.bound[name].cpu().numpy() for name in results}

    def _bind(self, name: str, tensor: Tensor) -> None:
        self.bound[name] = tensor
        # An empty tensor has no address, which TensorRT does not take
        memory = tensor if tensor.numel() else torch.empty(1, device="cuda")
        self.bound[f"memory of {name}"] = memory
        self.context.set_tensor_address(name, memory.data_ptr())

    def _execute(self) -> None:
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise Rejected("the engine does not run")

    def time_run(self) -> int:
        """See `latency.session.Loaded`; by CUDA events."""
        return self.clock.time(self.run)
