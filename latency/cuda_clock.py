"""Time on an NVIDIA GPU: CUDA events, and CUDA graphs that replay the kernels of a run as one.

Part of the agent: Python 3.9 and PyTorch only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

MAX_WALL_SAMPLES = 10_000
"""Wall times that are kept per model."""
CAPTURE_WARMUP = 3
"""Runs on a side stream before a capture, as PyTorch asks for."""


class CudaClock:
    """Times work on the current stream of the current device."""

    def __init__(self) -> None:
        self.start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.wall_ns: list[int] = []

    def time(self, run: Callable[[], Any]) -> int:
        """Run once; ns between the events around it, about half a microsecond exact."""
        torch.cuda.synchronize()
        started = time.perf_counter_ns()
        self.start.record()
        run()
        self.end.record()
        self.end.synchronize()
        if len(self.wall_ns) < MAX_WALL_SAMPLES:
            self.wall_ns.append(time.perf_counter_ns() - started)
        elapsed_ms: float = self.start.elapsed_time(self.end)
        return round(elapsed_ms * 1e6)

    def median_wall_ns(self) -> float:
        """Median wall time of a run with synchronisation before and after, ns."""
        return float(statistics.median(self.wall_ns))


def capture(run: Callable[[], Any]) -> Callable[[], Any]:
    """A function that replays the kernels of `run` as one CUDA graph.

    Args:
        run: Launches kernels on tensors that stay where they are.

    Raises:
        RuntimeError: It does what cannot be captured, such as a copy to the host.
    """
    with torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(CAPTURE_WARMUP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            # The results have to live as long as the graph that writes them
            results = run()

    def replay(keep: Any = results) -> None:
        graph.replay()

    return replay
