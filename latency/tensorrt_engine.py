"""From ONNX to a TensorRT engine: `tensorrt` and `tensorrt_rtx` have the same interface.

Networks are strongly typed: every layer runs in the precision that the ONNX file gives it
(`latency.half`), and the builder chooses kernels, not types.

Part of the agent, since an engine is built where it runs: Python 3.9 and TensorRT only.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from latency.session import Refused


def load_library(name: str) -> ModuleType:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        Refused: It is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        package = name.replace("_", "-")
        raise Refused(f"{name} cannot be imported ({reason}); pip install {package}") from None


def serve_build(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build an engine in a process of its own; see `latency.place.Place.build`.

    Args:
        request: library, shapes, tf32; files: model (ONNX), timings and engine (written).

    Returns:
        `{"built": SHA-256 of the engine}`.

    Raises:
        Refused: See `build_engine`.
    """
    engine = build_engine(
        Path(request["model"]).read_bytes(),
        library=request["library"],
        shapes={name: tuple(shape) for name, shape in request["shapes"].items()},
        tf32=request["tf32"],
        timings=Path(request["timings"]),
    )
    Path(request["engine"]).write_bytes(engine)
    return {"built": hashlib.sha256(engine).hexdigest()}


def build_engine(
    model: bytes,
    *,
    library: str,
    shapes: Mapping[str, tuple[int, ...]],
    tf32: bool = False,
    timings: Path | None = None,
) -> bytes:
    """Parse an ONNX model and build its engine.

    Args:
        model: The ONNX file's bytes.
        library: `tensorrt` or `tensorrt_rtx`; only the latter builds without a GPU.
        shapes: Shape of every input; the engine runs with no others.
        tf32: Whether fp32 matrix products may round their inputs to 10 bits of mantissa.
        timings: A file of kernel timings, read and written again; `tensorrt` only.
            (`tensorrt_rtx` has the calls, but they do nothing for the engine and need a GPU.)

    Raises:
        Refused: The library is missing or refuses the model; gives its first complaint.
    """
    trt = load_library(library)
    log = make_log(trt)
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        complaints = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise Refused(f"{library} does not read the model: {_first(complaints + log.errors)}")
    _allow_plain_attention(trt, network)
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_fixed_shapes(builder, network, shapes))
    cache = None
    if timings is not None and library == "tensorrt":
        content = timings.read_bytes() if timings.exists() else b""
        cache = config.create_timing_cache(content)
        config.set_timing_cache(cache, False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Refused(f"{library} cannot build the model: {_first(log.errors)}")
    if cache is not None and timings is not None:
        partial = timings.with_name(f"{timings.name}.{os.getpid()}")
        partial.write_bytes(bytes(cache.serialize()))
        partial.replace(timings)
    return bytes(engine)


def make_log(trt: Any) -> Any:
    """A logger that keeps complaints instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _allow_plain_attention(trt: Any, network: Any) -> None:
    """Let attention without a fused kernel, as of small heads, run operator by operator."""
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)  # older versions have none
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer  # layers come as their base class
            layer.attention.decomposable = True


def _fixed_shapes(builder: Any, network: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        shape = shapes[name]
        profile.set_shape(name, shape, shape, shape)
    return profile


def _first(complaints: list[str]) -> str:
    return " ".join((complaints or ["it gives no reason"])[0].split())[:300]
