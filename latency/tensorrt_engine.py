"""From ONNX to a TensorRT engine: `tensorrt` and `tensorrt_rtx` have the same interface.

Networks are strongly typed: every layer runs in the precision that the ONNX file gives it
(`latency.half`), and the builder chooses kernels, not types.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from latency.whole_file import write_whole
from search_spaces.errors import UserError


def load_library(name: str) -> ModuleType:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        UserError: It is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot be imported ({reason}); {how_to_get(name)}") from None


def how_to_get(name: str) -> str:
    """The command that installs a library."""
    return f"pip install 'elastic-nas[{name.replace('_', '-')}]'"


def build_engine(
    model: bytes,
    *,
    library: str,
    shapes: Mapping[str, tuple[int, ...]],
    tf32: bool = False,
    timing_cache: Path | None = None,
) -> bytes:
    """Parse an ONNX model and build its engine.

    Args:
        model: The ONNX file's bytes.
        library: `tensorrt` or `tensorrt_rtx`; only the latter builds without a GPU.
        shapes: Shape of every input; the engine runs with no others.
        tf32: Whether fp32 matrix products may round their inputs to 10 bits of mantissa.
        timing_cache: A file of kernel timings, read and written again; `tensorrt` only.
            (`tensorrt_rtx` has the calls, but they do nothing for the engine and need a GPU.)

    Raises:
        UserError: The library is missing or refuses the model; gives its first complaint.
    """
    trt = load_library(library)
    log = make_log(trt)
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        complaints = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise UserError(f"{library} does not read the model: {_first(complaints + log.errors)}")
    _allow_plain_attention(trt, network)
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_fixed_shapes(builder, network, shapes))
    cache = None
    if timing_cache is not None and library == "tensorrt":
        content = timing_cache.read_bytes() if timing_cache.exists() else b""
        cache = config.create_timing_cache(content)
        config.set_timing_cache(cache, False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{library} cannot build the model: {_first(log.errors)}")
    if cache is not None and timing_cache is not None:
        write_whole(timing_cache, bytes(cache.serialize()))
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
