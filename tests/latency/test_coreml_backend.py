"""CoreML: conversion is really done where coremltools is installed; the rest needs a Mac."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from latency.coreml_backend import CoreMLBackend
from latency.export import export_network
from latency.graphs import GraphLibrary
from latency.timing import TimingConfig
from search_spaces import Workload
from search_spaces.errors import UserError
from tests.latency import contract, networks

INSTALLED = importlib.util.find_spec("coremltools") is not None
coremltools = pytest.mark.skipif(not INSTALLED, reason="needs coremltools")
mac = pytest.mark.skipif(not INSTALLED or sys.platform != "darwin", reason="needs a Mac")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int3"}, "option precision 'int3' of coreml: use fp32, fp16"),
        ({"compute_units": "gpu"}, "use all, cpu, cpu-and-gpu, cpu-and-ne"),
        ({"target": "watch"}, "use mac, iphone"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(UserError, match=message):
        CoreMLBackend(**options)


@pytest.mark.skipif(INSTALLED, reason="coremltools is installed")
def test_without_coremltools(tmp_path: Path) -> None:
    backend = CoreMLBackend()
    wanted = "pip install 'elastic-nas[coreml]'"
    missing = f"coremltools, which converts, is not installed here; {wanted}"
    assert backend.missing() == missing
    with pytest.raises(UserError, match="coremltools cannot be imported"):
        backend.anchor(tmp_path)


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_without_a_mac(tiny: TimingConfig) -> None:
    with pytest.raises(UserError, match=r"not installed here|runs on macOS"):
        CoreMLBackend().run_session([], tiny)


def operations(path: Path) -> dict[str, int]:
    """Operators of a package by number, and types of their results."""
    import coremltools as ct

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    counts: dict[str, int] = {}
    for operation in block.operations:
        counts[operation.type] = counts.get(operation.type, 0) + 1
    return counts


@pytest.mark.slow
@coremltools
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_conversion(precision: str, library: GraphLibrary, tmp_path: Path) -> None:
    import coremltools as ct

    backend = CoreMLBackend(precision=precision)
    contract.check_name_and_fingerprint(backend)
    network, feeds = networks.whole(networks.TEXT, networks.DECODE)
    made = export_network(
        network,
        feeds,
        tmp_path / "decode.mlpackage",
        backend=backend,
        library=library,
        provenance={"architecture": "largest"},
    )
    assert made.path.is_dir()
    model = ct.models.MLModel(str(made.path), skip_model_load=True)
    names = json.loads(model.user_defined_metadata["ports"])
    assert set(names) == {port.name for port in (*network.inputs, *network.outputs)}
    shapes = {
        one.name: tuple(one.type.multiArrayType.shape) for one in model.get_spec().description.input
    }
    for name, value in feeds.items():
        assert shapes[names[name]] == tuple(value.shape)
    casts = operations(made.path).get("cast", 0)
    assert (casts > 2) == (precision == "fp16")


@coremltools
def test_anchor_and_second_conversion(tmp_path: Path) -> None:
    backend = CoreMLBackend()
    first = backend.anchor(tmp_path)
    assert (
        operations(first.path)[
            "softmax" if "softmax" in operations(first.path) else ("scaled_dot_product_attention")
        ]
        == 2
    )
    assert backend.anchor(tmp_path).path == first.path
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mlpackage", ".npz"]


@coremltools
def test_empty_cache_is_refused(library: GraphLibrary, tmp_path: Path) -> None:
    network, feeds = networks.whole(networks.TEXT, networks.PREFILL)
    with pytest.raises(UserError, match=r"no empty tensors, and past\.0\.key has shape"):
        CoreMLBackend().compile(
            network,
            feeds,
            tmp_path / "m.mlpackage",
            library=library,
            facts={},
        )


@mac
def test_on_a_mac(library: GraphLibrary, tmp_path: Path, tiny: TimingConfig) -> None:
    backend = CoreMLBackend()
    assert backend.missing() is None
    network, feeds = networks.whole(networks.VISION, Workload())
    made = export_network(
        network,
        feeds,
        tmp_path / "vit.mlpackage",
        backend=backend,
        library=library,
        provenance={},
    )
    samples = contract.check_session(backend, [backend.anchor(tmp_path), made], tiny)
    plans: list[dict[str, dict[str, int]]] = samples[0].session["compute_plans"]  # type: ignore[assignment]
    assert len(plans) == 2
    assert all(sum(operators.values()) > 0 for plan in plans for operators in plan.values())
    stale = dataclasses.replace(made, sha256="0" * 64)
    contract.check_rejects_changed_file(backend, backend.anchor(tmp_path), stale, tiny)


torch.set_num_threads(1)
