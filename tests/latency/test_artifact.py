import dataclasses
from pathlib import Path

import numpy as np
import pytest

from latency.anchor import build_anchor
from latency.artifact import build_artifact, load_artifact
from search_spaces.errors import UserError

ANCHOR_SHA256 = "7d0f9e0e8d6aa23586a564f92ddf55492d07c67005c08b77740d380671aef98a"


def test_the_anchor_never_changes(tmp_path: Path) -> None:
    # If this fails, PROTOCOL_VERSION must be raised: stored ratios are to another anchor
    assert build_anchor(tmp_path).sha256 == ANCHOR_SHA256
    assert build_anchor(tmp_path, layers=4).sha256 != ANCHOR_SHA256


def test_build_and_load(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"model")
    ids = np.zeros((1, 3), np.int64)
    built = build_artifact(
        path, inputs={"ids": ids, "a": ids[0]}, outputs={"y": ids}, provenance={"opset": 20}
    )
    assert built.signature == "a int64[3]; ids int64[1,3]"
    assert load_artifact(path, provenance={"opset": 20}) == built
    assert hash(built) == hash(dataclasses.replace(built, provenance={}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.npz", "m.onnx"]


def test_bad_artifacts(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(UserError, match="cannot read the model"):
        load_artifact(path)
    path.write_bytes(b"model")
    path.with_suffix(".npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"cannot read the model .*m\.npz"):
        load_artifact(path)
    one = np.zeros(1)
    with pytest.raises(ValueError, match="needs example inputs"):
        build_artifact(path, inputs={}, outputs={"y": one})
    artifact = build_artifact(path, inputs={"x": one}, outputs={"y": one})
    with pytest.raises(ValueError, match="hex"):
        dataclasses.replace(artifact, sha256="abc")
    with pytest.raises(ValueError, match="tolerance"):
        dataclasses.replace(artifact, tolerance=0.0)
