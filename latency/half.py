"""An ONNX model in fp16, but for chosen parts: what a strongly typed runtime runs as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from search_spaces.errors import UserError
from supernet.parts import Network


def to_half(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """A copy with fp16 weights and activations; inputs and outputs stay as they are.

    Args:
        model: An fp32 model without control flow; its nodes get names.
        keep: Nodes that stay fp32; casts are put around them.

    Raises:
        RuntimeError: The type of a value cannot be inferred.
    """
    _name_nodes(model)
    model = onnx.shape_inference.infer_shapes(model)
    return _Halving(model, keep).model


class _Halving:
    """The conversion: every node gets its float inputs in the precision that it runs in."""

    def __init__(self, model: onnx.ModelProto, keep: frozenset[str]) -> None:
        self.model = model
        graph = model.graph
        infos = (*graph.value_info, *graph.input, *graph.output)
        self.types = {info.name: info.type.tensor_type.elem_type for info in infos}
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.types |= {name: weight.data_type for name, weight in self.weights.items()}
        self.made_half: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.casts: dict[tuple[str, bool], str] = {}
        for node in graph.node:
            self._convert(node, node.name not in keep)
        self._restore_outputs()
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initializers.values())

    def _convert(self, node: onnx.NodeProto, half: bool) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            copy.input[place] = self._value(name, half)
        if half:
            for attribute in copy.attribute:
                _halve_attribute(copy.op_type, attribute)
            self.made_half.update(name for name in node.output if self._is_float(name))
        self.nodes.append(copy)

    def _value(self, name: str, half: bool) -> str:
        """The name under which a value is there in a precision."""
        if not name or not self._is_float(name):
            return name
        if name in self.weights:
            wanted = f"{name}.fp16" if half else name
            if wanted not in self.initializers:
                weight = self.weights[name]
                self.initializers[wanted] = _halve(weight, wanted) if half else weight
            return wanted
        if (name in self.made_half) == half:
            return name
        if (name, half) not in self.casts:
            wanted = self.casts[name, half] = f"{name}.{'fp16' if half else 'fp32'}"
            self._cast(name, wanted, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return self.casts[name, half]

    def _restore_outputs(self) -> None:
        for output in self.model.graph.output:
            if output.name not in self.made_half:
                continue
            inner = f"{output.name}.inner"
            for node in self.nodes:
                for names in (node.input, node.output):
                    for place, name in enumerate(names):
                        names[place] = inner if name == output.name else name
            self._cast(inner, output.name, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        name = f"cast to {target}"
        self.nodes.append(helper.make_node("Cast", [source], [target], name=name, to=to))

    def _is_float(self, name: str) -> bool:
        if name not in self.types:
            raise RuntimeError(f"the type of {name} cannot be inferred")
        return bool(self.types[name] == TensorProto.FLOAT)


def _halve_attribute(kind: str, attribute: onnx.AttributeProto) -> None:
    if kind == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.FLOAT16
    elif attribute.type == onnx.AttributeProto.TENSOR:
        if attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_halve(attribute.t, attribute.t.name))
    elif kind == "Constant" and attribute.name in ("value_float", "value_floats"):
        values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = numpy_helper.from_array(np.asarray(values, np.float32))
        attribute.CopyFrom(helper.make_attribute("value", _halve(tensor, "")))


def _halve(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(tensor)
    # What is finite stays finite
    finite = np.clip(array, -65504, 65504) if np.isfinite(array).all() else array
    return numpy_helper.from_array(finite.astype(np.float16), name)


def nodes_of_parts(
    model: onnx.ModelProto, network: Network, patterns: Sequence[str]
) -> frozenset[str]:
    """Names of the nodes of those parts whose names match.

    Args:
        model: What `GraphLibrary.assemble` made of `network`; its nodes get names.
        network: Its parts.
        patterns: Names of parts, such as `head` or `attention.*`.

    Raises:
        UserError: A pattern matches no part.
    """
    _name_nodes(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    for pattern in patterns:
        parts = [part for part in network.parts if fnmatchcase(part.name, pattern)]
        if not parts:
            names = ", ".join(part.name for part in network.parts)
            raise UserError(f"no part of the network is called {pattern!r}; there are {names}")
        for part in parts:
            # Everything between the outputs and the inputs of a part is of that part
            open_names = [name for name in part.outputs if name in makers]
            while open_names:
                node = makers[open_names.pop()]
                if node.name not in found:
                    found.add(node.name)
                    inputs = (name for name in node.input if name in makers)
                    open_names += [name for name in inputs if name not in part.inputs]
    return frozenset(found)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, which depends on its place alone."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{index}.{node.op_type}"
