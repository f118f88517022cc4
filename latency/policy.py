"""Precision policies in ONNX: the form of each scheme that onnxruntime turns into fast code.

What becomes of it in the runtime is in `docs/quantization.md`; a test looks at the optimized graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from search_spaces.schemes import FULL
from supernet.quantization import QuantizedLinear
from supernet.stored import StoredLayer, float_weight

CONTRIB = "com.microsoft"
"""Domain of onnxruntime's own operators."""
FLOAT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


TOLERANCES = {"w8a8": 0.5, "w8a8_dynamic": 0.5}
"""Allowed |runtime - simulation| of an output, in units of 1 + |simulation|, where it is more than
that of fp32. An input that lies between two integers goes one way here and the other way there, and
from then on the later layers round other numbers: at worst, outputs differ as two ways of rounding
do."""
MEAN_TOLERANCE = 0.01
"""The same for the mean over all outputs of these schemes: on average they hardly differ."""


def tolerance(schemes: Iterable[str]) -> float:
    """What a network with these schemes is allowed; 0 says that it is what fp32 is."""
    return max((TOLERANCES.get(name, 0.0) for name in schemes), default=0.0)


Layer = QuantizedLinear | StoredLayer


def write_policy(
    model: onnx.ModelProto, layers: Mapping[str, Layer], upright: Collection[str] = ()
) -> None:
    """Give the weights of a model their schemes, in place.

    Args:
        model: In fp32; a weight whose scheme has an arithmetic of its own is the second factor of
            MatMul nodes, `(I, O)`.
        layers: By the name of the initializer with their weight.
        upright: Names of those initializers that are `(O, I)` or `(O, ...)`.

    Raises:
        RuntimeError: A weight is not used that way.
    """
    if layers:
        _Writer(model, layers, upright).write()


class _Writer:
    def __init__(
        self, model: onnx.ModelProto, layers: Mapping[str, Layer], upright: Collection[str]
    ) -> None:
        self.model = model
        self.layers = layers
        self.upright = upright
        self.shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.made: dict[object, str] = {}
        self.biases: set[str] = set()
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.done: set[str] = set()

    def write(self) -> None:
        graph = self.model.graph
        self.biases = {one.name for one in graph.initializer if len(one.dims) == 1}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        written = set()
        for node in graph.node:
            if any(name in self.done for name in node.output):
                continue
            used = [name for name in node.input if name in self.layers]
            if not used:
                self.nodes.append(node)
                continue
            for name in used:
                if self.layers[name].scheme.runs_as == FULL and name not in written:
                    self._stored(name, self.layers[name])
            written.update(used)
            arithmetic = [name for name in used if self.layers[name].scheme.runs_as != FULL]
            if not arithmetic:
                self.nodes.append(node)
                continue
            layer = self.layers[arithmetic[0]]
            # A weight of one number is the same both ways, and is found as it is
            turned = used[0] not in self.upright or self.shapes[used[0]] == (1, 1)
            if node.op_type != "MatMul" or used != [node.input[1]] or not turned:
                raise RuntimeError(f"{used[0]} is a factor of {node.op_type}, not of a MatMul")
            assert isinstance(layer, QuantizedLinear)
            self._product(node, layer)
        if missing := set(self.layers) - written:
            raise RuntimeError(f"no node of the graph has the weights {sorted(missing)}")
        kept = [one for one in graph.initializer if one.name not in self.layers]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*kept, *self.initializers])
        if any(node.domain == CONTRIB for node in self.nodes):
            self.model.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    def _product(self, node: onnx.NodeProto, layer: QuantizedLinear) -> None:
        x, weight = node.input
        (out,) = node.output
        scheme = layer.scheme
        if scheme.group is not None:
            self._by_groups(x, weight, out, layer)
        elif scheme.activations == "static":
            self._static(x, weight, out, layer)
        else:
            self._dynamic(x, weight, out, layer)

    def _stored(self, weight: str, layer: Layer) -> None:
        """Few bits in the file, the floats of before when the runtime has loaded it.

        Whatever reads the weight finds it in its own shape: what makes it is a constant.
        """
        if layer.scheme.name in FLOAT_TYPES:
            self._stored_float(weight, layer)
        elif layer.scheme.group is None:
            self._stored_integers(weight, layer)
        else:
            self._stored_groups(weight, layer)

    def _stored_float(self, weight: str, layer: Layer) -> None:
        name = layer.scheme.name
        values = float_weight(layer.weight.detach(), layer.scheme)  # (O, I)
        values = values.reshape(self.shapes[weight]) if weight in self.upright else values.T
        raw = values.contiguous().view(torch.int16).numpy().tobytes()
        stored = helper.make_tensor(
            f"{weight}.{name}", FLOAT_TYPES[name], values.shape, raw, raw=True
        )
        self.initializers.append(stored)
        self._node("Cast", [stored.name], weight, to=TensorProto.FLOAT)

    def _stored_integers(self, weight: str, layer: Layer) -> None:
        integers = layer.integers()
        values, scale = integers.values.numpy().T, integers.scale.numpy()  # (I, O), (O,)
        if weight in self.upright:
            shape = self.shapes[weight]  # (O, ...)
            values, scale = values.T.reshape(shape), scale.reshape(-1, *(1 for _ in shape[1:]))
        self._constant(f"{weight}.int8", np.ascontiguousarray(values))
        self._constant(f"{weight}.scale", scale)
        self._node("Cast", [f"{weight}.int8"], f"{weight}.float", to=TensorProto.FLOAT)
        self._node("Mul", [f"{weight}.float", f"{weight}.scale"], weight)

    def _stored_groups(self, weight: str, layer: Layer) -> None:
        integers = layer.integers()
        values = integers.values.numpy()  # (O, G, 32)
        _, groups, size = values.shape
        raw = _packed(values ^ np.uint8(8)).tobytes()  # q - 8 in two's complement: top bit turned
        stored = helper.make_tensor(f"{weight}.int4", TensorProto.INT4, values.shape, raw, raw=True)
        self.initializers.append(stored)
        self._constant(f"{weight}.scale", integers.scale.numpy()[..., None])
        self._node("Cast", [stored.name], f"{weight}.grouped", to=TensorProto.FLOAT)
        self._node("Mul", [f"{weight}.grouped", f"{weight}.scale"], f"{weight}.scaled")
        self._node("Flatten", [f"{weight}.scaled"], f"{weight}.rows", axis=1)  # (O, G * 32)
        rows = f"{weight}.rows"
        if layer.in_features < groups * size:
            ends = [self._whole(f"{weight}.{name}", [value]) for name, value in
                    (("start", 0), ("end", layer.in_features), ("axis", 1))]  # fmt: skip
            self._node("Slice", [rows, *ends], f"{rows}.filled")
            rows = f"{rows}.filled"
        if weight in self.upright:
            shape = self._whole(f"{weight}.shape", self.shapes[weight])
            self._node("Reshape", [rows, shape], weight)
        else:
            self._node("Transpose", [rows], weight, perm=[1, 0])

    def _whole(self, name: str, values: Sequence[int]) -> str:
        """A constant of integers that is no weight."""
        self._node("Constant", [], name, value_ints=list(values))
        return name

    def _static(self, x: str, weight: str, out: str, layer: QuantizedLinear) -> None:
        """What QDQ nodes become, with the bias, which they would leave to a node of its own."""
        scale = np.float32(layer.scale.item())
        zero = np.uint8(layer.zero.item())
        key = (x, float(scale), int(zero))
        if key not in self.made:
            self.made[key] = source = f"{weight}.input"
            self._constant(f"{source}_scale", np.asarray(scale))
            self._constant(f"{source}_zero", np.asarray(zero))
            self._node("QuantizeLinear", [x, f"{source}_scale", f"{source}_zero"], source)
        source = self.made[key]
        values, weight_scale = self._integers(weight, layer)
        inputs = [source, values, f"{source}_scale", weight_scale, f"{source}_zero"]
        readers = self.readers.get(out, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            (added,) = (name for name in readers[0].input if name != out)
            if added in self.biases:
                inputs += ["", added]  # weights have no zero point
                (out,) = readers[0].output
                self.done.add(out)
        self._node("MatMulIntegerToFloat", inputs, out, domain=CONTRIB)

    def _dynamic(self, x: str, weight: str, out: str, layer: QuantizedLinear) -> None:
        if x not in self.made:
            name = self.made[x] = f"{weight}.input"
            outputs = [f"{name}.int8", f"{name}.scale", f"{name}.zero"]
            self.nodes.append(
                helper.make_node("DynamicQuantizeLinear", [x], outputs, name=f"{name} to integers")
            )
        source = self.made[x]
        values, scale = self._integers(weight, layer)
        self._node("MatMulInteger", [f"{source}.int8", values, f"{source}.zero"], f"{weight}.sums")
        self._node("Cast", [f"{weight}.sums"], f"{weight}.products", to=TensorProto.FLOAT)
        self._node("Mul", [f"{source}.scale", scale], f"{weight}.scales")
        self._node("Mul", [f"{weight}.products", f"{weight}.scales"], out)

    def _by_groups(self, x: str, weight: str, out: str, layer: QuantizedLinear) -> None:
        integers = layer.integers()
        values = integers.values.numpy()  # (O, G, 32)
        self._constant(f"{weight}.int4", _packed(values))  # (O, G, 16)
        self._constant(f"{weight}.scale", integers.scale.numpy())
        self._node(
            "MatMulNBits",
            [x, f"{weight}.int4", f"{weight}.scale"],
            out,
            domain=CONTRIB,
            K=layer.in_features,
            N=layer.out_features,
            bits=4,
            block_size=values.shape[2],
        )

    def _integers(self, weight: str, layer: QuantizedLinear) -> tuple[str, str]:
        """Initializers of the values, shape `(I, O)` int8, and of the scale, shape `(O,)`."""
        integers = layer.integers()
        self._constant(f"{weight}.int8", np.ascontiguousarray(integers.values.numpy().T))
        self._constant(f"{weight}.scale", integers.scale.numpy())
        return f"{weight}.int8", f"{weight}.scale"

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        self.initializers.append(numpy_helper.from_array(value, name))

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"{output} by {kind}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))


def _packed(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two values of 4 bits a byte, the first one below, along the last axis."""
    packed: NDArray[np.uint8] = values[..., 0::2] | (values[..., 1::2] << np.uint8(4))
    return packed
