"""The anchor: one fixed model that every session times beside its candidates.

Two small transformer encoder blocks with computed weights: the same bytes on every machine and
with every version of onnx, and independent of any search space, so that latencies of different
days and spaces share one unit. About half a millisecond on one core of a server.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency.artifact import Artifact, build_artifact
from latency.database import storage_errors

WIDTH, TOKENS, HEADS, HIDDEN, ANCHOR_LAYERS = 96, 48, 3, 384, 2
EPSILON = 1e-5

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AnchorValues:
    """What the anchor computes with, and what it must give."""

    weights: dict[str, Array]
    """Weights `(in, out)` and biases by name, `qkv.0`, `qkv_bias.0`, ..."""
    input: Array
    """Shape `(1, TOKENS, WIDTH)`."""
    output: Array
    """Shape of the input; computed in numpy, in double precision."""


def anchor_values(layers: int = ANCHOR_LAYERS) -> AnchorValues:
    """Weights, example input and reference output, the same on every machine."""
    weights = _weights(layers)
    tokens = _numbers((1, TOKENS, WIDTH), 10_000, scale=2.0)
    return AnchorValues(weights=weights, input=tokens, output=_forward(tokens, weights, layers))


def build_anchor(folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
    """Write `anchor.onnx` with its feeds into `folder`; another depth makes another model.

    The reference output is computed here in numpy, not by the runtime that will be timed.

    Raises:
        UserError: The disk is full.
    """
    path = folder / ("anchor.onnx" if layers == ANCHOR_LAYERS else f"anchor-{layers}.onnx")
    values = anchor_values(layers)
    with storage_errors(path):
        path.write_bytes(_serialize(values.weights, layers))
    return build_artifact(
        path,
        inputs={"x": values.input},
        outputs={"y": values.output},
        tolerance=1e-3,
        provenance={"anchor": "transformer-1", "opset": 20, "precision": "fp32"},
    )


def _numbers(shape: tuple[int, ...], offset: int, scale: float) -> Array:
    # Integer hashing: numpy does not promise that its random streams stay the same
    index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(offset * 1_000_003)
    mixed = (index * np.uint64(2654435761)) % np.uint64(2**32)
    mixed = ((mixed ^ (mixed >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(2**32)
    unit = mixed.astype(np.float64) / 2**32 - 0.5
    return (scale * unit).astype(np.float32).reshape(shape)


def _weights(layers: int) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    shapes = {
        "qkv": (WIDTH, 3 * WIDTH),
        "proj": (WIDTH, WIDTH),
        "up": (WIDTH, HIDDEN),
        "down": (HIDDEN, WIDTH),
    }
    for layer in range(layers):
        for place, (name, shape) in enumerate(shapes.items()):
            offset = 100 * layer + place + 1
            scale = 2.0 / math.sqrt(shape[0])
            weights[f"{name}.{layer}"] = _numbers(shape, offset, scale)
            weights[f"{name}_bias.{layer}"] = _numbers(shape[1:], 50 + offset, 0.1)
    weights["one"] = np.ones(WIDTH, np.float32)
    weights["zero"] = np.zeros(WIDTH, np.float32)
    weights["scale"] = np.array(1 / math.sqrt(WIDTH // HEADS), np.float32)
    return weights


def _forward(x: Array, weights: dict[str, Array], layers: int) -> Array:
    """The same network in numpy, `(1, TOKENS, WIDTH)` to the same shape."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    x64 = x.astype(np.float64)
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def normalize(value: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = value - value.mean(-1, keepdims=True)
        return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON))

    for i in range(layers):
        qkv = normalize(x64) @ w[f"qkv.{i}"] + w[f"qkv_bias.{i}"]
        heads = qkv.reshape(TOKENS, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        scores = heads[0] * w["scale"] @ heads[1].swapaxes(-1, -2)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ heads[2]
        mixed = mixed.swapaxes(0, 1).reshape(1, TOKENS, WIDTH)
        x64 = x64 + mixed @ w[f"proj.{i}"] + w[f"proj_bias.{i}"]
        hidden = normalize(x64) @ w[f"up.{i}"] + w[f"up_bias.{i}"]
        hidden = 0.5 * hidden * (1 + erf(hidden / math.sqrt(2)))
        x64 = x64 + hidden @ w[f"down.{i}"] + w[f"down_bias.{i}"]
    return normalize(x64).astype(np.float32)


def _serialize(weights: dict[str, Array], layers: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []

    def add(kind: str, *inputs: str, name: str, outputs: int = 1, **attributes: Any) -> str:
        names = [name] if outputs == 1 else [f"{name}.{k}" for k in range(outputs)]
        nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return name

    def linear(value: str, weight: str, i: int) -> str:
        product = add("MatMul", value, f"{weight}.{i}", name=f"{weight}_matmul.{i}")
        return add("Add", product, f"{weight}_bias.{i}", name=f"{weight}_add.{i}")

    def normalize(value: str, name: str) -> str:
        return add("LayerNormalization", value, "one", "zero", name=name, epsilon=EPSILON)

    x = "x"
    for i in range(layers):
        qkv = linear(normalize(x, f"norm1.{i}"), "qkv", i)
        heads = add("Reshape", qkv, "split_shape", name=f"heads.{i}")
        heads = add("Transpose", heads, name=f"heads_first.{i}", perm=[2, 0, 3, 1, 4])
        q, k, v = (add("Gather", heads, f"index{n}", name=f"{n}.{i}", axis=0) for n in "qkv")
        q = add("Mul", q, "scale", name=f"q_scaled.{i}")
        k = add("Transpose", k, name=f"k_transposed.{i}", perm=[0, 1, 3, 2])
        scores = add("MatMul", q, k, name=f"scores.{i}")
        scores = add("Softmax", scores, name=f"softmax.{i}", axis=-1)
        mixed = add("MatMul", scores, v, name=f"mixed.{i}")
        mixed = add("Transpose", mixed, name=f"tokens_first.{i}", perm=[0, 2, 1, 3])
        mixed = add("Reshape", mixed, "join_shape", name=f"joined.{i}")
        x = add("Add", x, linear(mixed, "proj", i), name=f"residual1.{i}")
        hidden = linear(normalize(x, f"norm2.{i}"), "up", i)
        hidden = add("Gelu", hidden, name=f"gelu.{i}")
        x = add("Add", x, linear(hidden, "down", i), name=f"residual2.{i}")
    normalize(x, "y")

    constants: dict[str, NDArray[Any]] = {
        **weights,
        "split_shape": np.array([1, TOKENS, 3, HEADS, WIDTH // HEADS], np.int64),
        "join_shape": np.array([1, TOKENS, WIDTH], np.int64),
        **{f"index{n}": np.array(k, np.int64) for k, n in enumerate("qkv")},
    }
    shape = [1, TOKENS, WIDTH]
    graph = helper.make_graph(
        nodes,
        "anchor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # Versions are named: onnx would write its own latest
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, ir_version=9, opset_imports=opset, producer_name="elastic-nas")
    return bytes(model.SerializeToString(deterministic=True))
