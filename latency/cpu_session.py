"""An exported model in onnxruntime on this host, to be judged rather than timed.

Like every session here and every deployed one, it has the options that its processor needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from latency.onnxruntime_session import CPU, local_config


def cpu_session(model: bytes | Path, threads: int, optimized: Path | None = None) -> Any:
    """An `InferenceSession` on the CPU that gives what a deployed one gives.

    Args:
        model: The ONNX file, or its bytes.
        threads: Intra-op threads.
        optimized: Where the graph that really runs is written.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for name, value in local_config(spinning=False).items():
        options.add_session_config_entry(name, value)
    if optimized is not None:
        options.log_severity_level = 3  # else it warns that the file is for this processor only
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=[CPU])
