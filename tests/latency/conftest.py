from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency.anchor import build_anchor
from latency.artifact import Artifact, build_artifact
from latency.graphs import GraphLibrary
from latency.timing import TimingConfig
from tests.latency.remote_device import (
    Device,
    Server,
    make_interpreter,
    remote_device,
    serve_ssh,
)


def write_matmul(path: Path, width: int, layers: int = 2, wrong: bool = False) -> Artifact:
    """A chain of MatMuls, `(1, width)` to the same."""
    weight = np.eye(width, dtype=np.float32) * 0.5
    nodes = [helper.make_node("MatMul", [f"v{i}", "w"], [f"v{i + 1}"]) for i in range(layers)]
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name in ("v0", f"v{layers}")
    ]
    graph = helper.make_graph(
        nodes, "g", info[:1], info[1:], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    x = np.ones((1, width), np.float32)
    y = x * 0.5**layers + (1.0 if wrong else 0.0)
    return build_artifact(
        path, inputs={"v0": x}, outputs={f"v{layers}": y}, provenance={"width": width}
    )


def write_endless(path: Path) -> Artifact:
    """A loop of 2**50 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["a_in", "a_in"], ["a_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a_in", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a_out", TensorProto.FLOAT, [1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(2**50, np.int64), "turns")],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    one = np.zeros(1, np.float32)
    return build_artifact(path, inputs={"x": one}, outputs={"y": one})


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("models")
    broken = folder / "broken.onnx"
    broken.write_bytes(b"not a model")
    one = np.zeros(1, np.float32)
    return {
        "anchor": build_anchor(folder),
        "small": write_matmul(folder / "small.onnx", 32),
        "large": write_matmul(folder / "large.onnx", 256, layers=8),
        "wrong": write_matmul(folder / "wrong.onnx", 16, wrong=True),
        "broken": build_artifact(broken, inputs={"x": one}, outputs={"y": one}),
        "endless": write_endless(folder / "endless.onnx"),
    }


@pytest.fixture
def tiny() -> TimingConfig:
    """Sessions of 0.1 s beside the start of the process; anything is precise and calm enough."""
    return TimingConfig(
        mode="quick",
        min_sessions=2,
        max_sessions=3,
        rounds=2,
        block_ms=2.0,
        warmup_s=0.02,
        interval_target=100.0,
        drift_limit=100.0,
        sentinel_limit=100.0,
        cooldown_s=0.0,
        backoff_s=0.0,
    )


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's Python: numpy, onnxruntime, nothing else."""
    return make_interpreter(tmp_path_factory.mktemp("device") / "venv")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real sshd where there is one."""
    with serve_ssh(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def device(
    tmp_path: Path, interpreter: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Device]:
    """A device behind SSH with a fresh agent's folder."""
    monkeypatch.setenv("HOME", str(tmp_path))  # no ssh configuration of the user's
    with remote_device(tmp_path / "device", interpreter, server) as device:
        yield device


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> GraphLibrary:
    """Parts that any test has exported: an export takes seconds."""
    return GraphLibrary(tmp_path_factory.mktemp("library"))
