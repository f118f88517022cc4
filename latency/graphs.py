"""From a network to ONNX: every distinct part is exported once, networks are put together.

`torch.onnx.export` takes seconds for a whole network and less for one block, and a search space
has few distinct blocks. So a part is exported once per shape, its weights become inputs of an ONNX
function, and a network is calls of such functions, inlined. A chain of a latency table, a whole
subnet and the file that ships are put together from the same functions. A precision policy is
written into what is put together (`latency.policy`): parts are exported in fp32.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper
from torch import Tensor, nn

import supernet
from latency.files import write_bytes
from latency.onnx_form import OPSET
from latency.policy import Layer, write_policy
from latency.user_cache import user_cache
from search_spaces.errors import UserError
from supernet.onnx_attention import in_onnx_form
from supernet.parts import Network, Part, Port, example_inputs
from supernet.quantization import QuantizedLinear, full_precision
from supernet.stored import StoredLayer

_Function = tuple[onnx.FunctionProto, dict[str, tuple[str, bool]]]
"""Takes inputs and weights; and by the name of a weight its parameter, and whether transposed."""

DOMAIN = "elastic_nas"
# Two sets of sizes: a dimension that differs between them is free.
SIZES = (
    {"batch": 2, "sequence": 3, "past": 4, "total": 7},
    {"batch": 3, "sequence": 4, "past": 1, "total": 5},
)


def module_key(module: nn.Module) -> str:
    """Twenty hexadecimal digits that name what a module computes, but for its weights."""
    digest = hashlib.sha256(f"{torch.__version__} {onnx.__version__} {OPSET}".encode())
    for name, part in module.named_modules():
        plain = {
            key: value
            for key, value in sorted(vars(part).items())
            if isinstance(value, int | float | str | tuple) and key != "training"
        }
        digest.update(f"{name} {type(part).__module__} {type(part).__qualname__} {plain}".encode())
        if type(part).__module__.startswith("supernet."):
            digest.update(_source(inspect.getfile(type(part))))
    for name, parameter in module.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
    for name, buffer in module.named_buffers():
        digest.update(name.encode() + buffer.numpy().tobytes())
    return digest.hexdigest()[:20]


@cache
def _source(file: str) -> bytes:
    """The file that defines a class: another version of it computes something else."""
    return Path(file).read_bytes()


@cache
def _sources() -> str:
    """Names this code and the exporter: later versions may export otherwise."""
    digest = hashlib.sha256(version("onnxscript").encode() + _source(__file__))
    for file in sorted(Path(inspect.getfile(supernet)).parent.rglob("*.py")):
        digest.update(_source(str(file)))
    return digest.hexdigest()


class GraphLibrary:
    """Exported parts, without their weights, kept in a folder.

    Args:
        folder: Where exported parts are kept; made if it is not there. None: in the user's cache,
            so that the next run need not export them again. One that cannot be written keeps none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_cache("parts") if folder is None else folder
        self._functions: dict[tuple[str, tuple[tuple[int | str, ...], ...]], _Function] = {}

    def assemble(
        self,
        network: Network,
        metadata: Mapping[str, str] | None = None,
        *,
        onnx_attention: bool = True,
    ) -> onnx.ModelProto:
        """The network as one ONNX model with the weights of its modules.

        Args:
            network: What to put together; its quantized layers keep their schemes.
            metadata: Strings that are kept in the model.
            onnx_attention: Whether attention is written as `supernet.onnx_attention` has it.

        Raises:
            RuntimeError: A part's exported graph does not hold its weights.
        """
        functions: dict[str, onnx.FunctionProto] = {}
        nodes, initializers = [], []
        examples: list[dict[str, Tensor]] = []
        ports = tuple(port.shape for port in network.inputs)
        layers: dict[str, Layer] = {}
        upright: set[str] = set()
        for part in network.parts:
            quantized = replace(part, module=in_onnx_form(part.module)) if onnx_attention else part
            part = replace(quantized, module=full_precision(quantized.module))
            key = module_key(part.module)
            if (key, ports) not in self._functions:
                if not examples:
                    examples = [network.run(example_inputs(network.inputs, s)) for s in SIZES]
                self._functions[key, ports] = self._load(key, part, examples)
            function, weights = self._functions[key, ports]
            functions[key] = function
            parameters = dict(part.module.named_parameters())
            for weight, (name, transposed) in weights.items():
                owner, _, leaf = name.rpartition(".")
                layer = quantized.module.get_submodule(owner)
                if isinstance(layer, QuantizedLinear | StoredLayer) and leaf == "weight":
                    layers[f"{part.name}.{weight}"] = layer
                    if not transposed:
                        upright.add(f"{part.name}.{weight}")
                array = parameters[name].detach().numpy()
                initializers.append(
                    numpy_helper.from_array(
                        np.ascontiguousarray(array.T if transposed else array),
                        f"{part.name}.{weight}",
                    )
                )
            nodes.append(
                helper.make_node(
                    key,
                    [*part.inputs, *(f"{part.name}.{weight}" for weight in weights)],
                    list(part.outputs),
                    name=part.name,
                    domain=DOMAIN,
                )
            )
        graph = helper.make_graph(
            nodes,
            "network",
            [_value_info(port) for port in network.inputs],
            [_value_info(port) for port in network.outputs],
            initializers,
        )
        model = helper.make_model(
            graph,
            functions=list(functions.values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
            ir_version=10,
            producer_name="elastic-nas",
        )
        model = inliner.inline_local_functions(model)
        for position in reversed(range(len(model.opset_import))):
            if model.opset_import[position].domain == DOMAIN:
                del model.opset_import[position]
        write_policy(model, layers, upright)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model)
        return model

    def _load(self, key: str, part: Part, examples: list[dict[str, Tensor]]) -> _Function:
        # Dimensions that are not free are in the graph: the tokens of an image, say
        shapes = [tuple(example[name].shape) for example in examples for name in part.inputs]
        made_by = hashlib.sha256(f"{_sources()} {shapes}".encode()).hexdigest()[:12]
        path = self.folder / f"{key}-{made_by}.part"
        model = _read(path)
        if model is None:
            model = export_part(part, examples)
            data = model.SerializeToString()
            with suppress(UserError, OSError):  # a folder that cannot be written keeps none
                write_bytes(path, hashlib.sha256(data).digest() + data)
        stored = {prop.key: prop.value for prop in model.metadata_props}
        weights = {
            name: (parameter, transposed)
            for name, (parameter, transposed) in json.loads(stored["weights"]).items()
        }
        return _function(key, model, weights), weights


def _read(path: Path) -> onnx.ModelProto | None:
    """An exported part; None if it is not there or damaged, so that it is exported again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, data = data[:32], data[32:]
    if hashlib.sha256(data).digest() != digest:
        return None
    model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    return model


def export_part(part: Part, examples: list[dict[str, Tensor]]) -> onnx.ModelProto:
    """Export one part with every dimension free that differs between two examples.

    Returns:
        A model whose metadata `weights` maps an initializer to (parameter, transposed).

    Raises:
        RuntimeError: A parameter is not found in the exported graph.
    """
    first, second = ([example[name] for name in part.inputs] for example in examples)
    free = torch.export.Dim.DYNAMIC
    shapes = [
        {dim: free for dim in range(a.dim()) if a.shape[dim] != b.shape[dim]}
        for a, b in zip(first, second, strict=True)
    ]
    wrapped = _Positional(part.module).eval()
    # Fresh random weights tell the parameters apart, however alike the trained ones are.
    kept = [parameter.detach().clone() for parameter in part.module.parameters()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    try:
        with _quiet():
            program = torch.onnx.export(
                wrapped,
                tuple(first),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(tuple(shapes),),
                verbose=False,
            )
        assert program is not None
        model: onnx.ModelProto = program.model_proto
        weights = _weights(part, model)
        helper.set_model_props(model, {"weights": json.dumps(weights)})
        for initializer in model.graph.initializer:
            if initializer.name in weights:
                initializer.ClearField("raw_data")
    finally:
        with torch.no_grad():
            for parameter, value in zip(part.module.parameters(), kept, strict=True):
                parameter.copy_(value)
    return model


class _Positional(nn.Module):
    """A module that takes its tensors as one sequence, so that each may have free dimensions."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> object:
        return self.module(*tensors)


def _weights(part: Part, model: onnx.ModelProto) -> dict[str, tuple[str, bool]]:
    """Which initializer is which parameter, as it is or transposed."""
    parameters = {name: value.detach().numpy() for name, value in part.module.named_parameters()}
    found: dict[str, tuple[str, bool]] = {}
    for initializer in model.graph.initializer:
        array: NDArray[np.generic] = numpy_helper.to_array(initializer)
        for name, value in parameters.items():
            if np.array_equal(array, value):
                found[initializer.name] = (name, False)
            elif array.ndim == 2 and np.array_equal(array, value.T):
                found[initializer.name] = (name, True)
    missing = set(parameters) - {name for name, _ in found.values()}
    if missing:
        raise RuntimeError(f"part {part.name}: the exported graph lacks {sorted(missing)}")
    return found


def _function(
    key: str, model: onnx.ModelProto, weights: Mapping[str, tuple[str, bool]]
) -> onnx.FunctionProto:
    """The graph as a function of its inputs and its weights; other initializers are constants."""
    graph = model.graph
    constants = [
        helper.make_node("Constant", [], [initializer.name], value=initializer)
        for initializer in graph.initializer
        if initializer.name not in weights
    ]
    return helper.make_function(
        DOMAIN,
        key,
        [*(value.name for value in graph.input), *weights],
        [value.name for value in graph.output],
        [*constants, *graph.node],
        [opset for opset in model.opset_import if opset.domain == ""],
    )


def _value_info(port: Port) -> onnx.ValueInfoProto:
    kind = onnx.TensorProto.INT64 if port.tokens else onnx.TensorProto.FLOAT
    return helper.make_tensor_value_info(port.name, kind, list(port.shape))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about its own internals from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
