"""An ONNX model in fp16, but for chosen parts: what a strongly typed runtime runs as it stands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx

from search_spaces.errors import UserError
from supernet.parts import Network


def to_half(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """The model with fp16 weights and activations; inputs and outputs stay as they are.

    Args:
        model: An fp32 model; changed in place.
        keep: Nodes that stay fp32; casts are put around them.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    _name_nodes(model)  # it leaves nodes without a name as they are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on weights that are rounded to the least fp16
        half: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, node_block_list=sorted(keep), op_block_list=[]
        )
    _name_nodes(half)  # it gives several casts of one value the same name
    return half


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
