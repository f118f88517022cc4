"""What outlier columns cost in onnxruntime: 8-bit inputs, and some in fp32 beside them.

    python -m benchmarks.outlier_cost

A layer of 384 inputs and 128 outputs, the FFN's last of the language model's largest subnet, with
and without 12 columns (3 %) in fp32. One thread, in turns in one process; the lower quartile.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.results import number, table, write_results
from latency.cpu_session import cpu_session
from latency.policy import CONTRIB

INPUTS, OUTPUTS, COLUMNS = 384, 128, 12
ROWS = (1, 16, 128)
ROUNDS = 2000


def main() -> int:
    """Time both layers for each number of rows."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = []
    for count in ROWS:
        x = {"x": np.random.default_rng(0).normal(size=(count, INPUTS)).astype(np.float32)}
        models = [layer(columns).SerializeToString() for columns in (0, COLUMNS)]
        sessions = [cpu_session(model, threads=1) for model in models]
        times = np.empty((ROUNDS, 2))
        for turn in range(ROUNDS):
            for place, one in enumerate(sessions):
                start = time.perf_counter_ns()
                one.run(None, x)
                times[turn, place] = time.perf_counter_ns() - start
        plain, split = np.quantile(times, 0.25, axis=0) / 1000
        rows.append({"rows": count, "w8a8_us": float(plain), "outlier_columns_us": float(split)})
    lines = [
        [
            str(row["rows"]),
            number(row["w8a8_us"], 1),
            number(row["outlier_columns_us"], 1),
            number(row["outlier_columns_us"] / row["w8a8_us"], 2),
        ]
        for row in rows
    ]
    print(table(["rows", "w8a8 us", "with columns in fp32", "times"], lines))
    print(f"\n{write_results('outlier-cost', {'rows': rows})}", file=sys.stderr)
    return 0


def layer(columns: int) -> onnx.ModelProto:
    """The layer, with so many columns in fp32 (0: none)."""
    rng = np.random.default_rng(1)
    values = {
        "scale": np.float32(0.02),
        "zero": np.uint8(128),
        "weight": rng.integers(-127, 128, size=(INPUTS, OUTPUTS)).astype(np.int8),
        "scales": np.full(OUTPUTS, 0.01, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["integers"]),
        helper.make_node(
            "MatMulIntegerToFloat",
            ["integers", "weight", "scale", "scales", "zero"],
            ["product" if columns else "y"],
            domain=CONTRIB,
        ),
    ]
    if columns:
        # Their 8-bit weights are 0, so that the inputs need no mask
        chosen = np.sort(rng.choice(INPUTS, size=columns, replace=False))
        values["weight"][chosen] = 0
        values["columns"] = chosen.astype(np.int64)
        values["few"] = rng.normal(size=(columns, OUTPUTS)).astype(np.float32)
        nodes += [
            helper.make_node("Gather", ["x", "columns"], ["far"], axis=1),
            helper.make_node("MatMul", ["far", "few"], ["rest"]),
            helper.make_node("Add", ["product", "rest"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


if __name__ == "__main__":
    sys.exit(main())
