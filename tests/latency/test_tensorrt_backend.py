"""TensorRT: what needs no GPU is really done with `tensorrt_rtx`; the rest is for `make gpu`."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from latency import nvidia
from latency.graphs import GraphLibrary
from latency.half import nodes_of_parts, to_half
from latency.place import ThisHost
from latency.session import Refused
from latency.tensorrt_backend import TensorRTBackend
from latency.tensorrt_engine import build_engine, load_library
from latency.timing import TimingConfig
from latency.user_cache import user_cache
from search_spaces import Workload
from search_spaces.errors import UserError
from tests.latency import contract, networks

INSTALLED = [
    name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name) is not None
]
rtx = pytest.mark.skipif("tensorrt_rtx" not in INSTALLED, reason="needs tensorrt_rtx")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """How many weights there are of each type."""
    counts: dict[str, int] = {}
    for initializer in model.graph.initializer:
        name = onnx.TensorProto.DataType.Name(initializer.data_type)
        counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("name", list(networks.cases()))
def test_half_precision(name: str, library: GraphLibrary) -> None:
    network, feeds = networks.cases()[name]
    half = to_half(library.assemble(network))
    assert "FLOAT" not in types(half)
    onnx.checker.check_model(half, full_check=True)
    session = onnxruntime.InferenceSession(
        half.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    arrays = {key: value.numpy() for key, value in feeds.items()}
    outputs = session.run([port.name for port in network.outputs], arrays)
    values = network.run(feeds)
    for port, output in zip(network.outputs, outputs, strict=True):
        assert output.dtype == np.float32
        reference = values[port.name].numpy()
        assert np.abs(output - reference).max() <= 2e-2 * (1 + np.abs(reference).max())


def test_parts_that_stay_in_full_precision(library: GraphLibrary) -> None:
    network, feeds = networks.whole(networks.VISION, Workload())
    model = library.assemble(network)
    keep = nodes_of_parts(model, network, ["head", "ffn.*"])
    half = to_half(model, keep)
    for initializer in half.graph.initializer:
        if initializer.name.startswith(("head.", "ffn.")):
            assert initializer.data_type == onnx.TensorProto.FLOAT, initializer.name
        elif initializer.name.startswith(("stem.", "attention.")):
            assert initializer.data_type == onnx.TensorProto.FLOAT16, initializer.name
    assert types(half).keys() >= {"FLOAT", "FLOAT16"}
    session = onnxruntime.InferenceSession(
        half.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    output = session.run(None, {"images": feeds["images"].numpy()})[0]
    assert np.abs(output - network.run(feeds)["logits"].numpy()).max() < 2e-2


def test_unknown_part(library: GraphLibrary) -> None:
    network, _ = networks.whole(networks.VISION, Workload())
    with pytest.raises(UserError, match=r"no part of the network is called 'neck'; there are stem"):
        nodes_of_parts(library.assemble(network), network, ["neck"])


def test_missing() -> None:
    absent = next(name for name in ("tensorrt", "tensorrt_rtx") if name not in INSTALLED)
    backend = TensorRTBackend(library=absent)
    package = absent.replace("_", "-")
    assert backend.missing() == f"{absent} is not installed; pip install {package}"
    with pytest.raises(Refused, match=f"{absent} cannot be imported"):
        load_library(absent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int3"}, "option precision 'int3' of tensorrt: use fp32, fp16"),
        ({"tf32": 1}, "option tf32 1 of tensorrt: use true, false"),
        ({"fp32_parts": "head"}, "option fp32_parts 'head' of tensorrt: give a list"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(UserError, match=message):
        TensorRTBackend(**options)


@pytest.mark.slow
@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_are_built_without_a_gpu(
    precision: str, library: GraphLibrary, tmp_path: Path
) -> None:
    parts = ["head"] if precision == "fp16" else []
    backend = TensorRTBackend(library="tensorrt_rtx", precision=precision)
    contract.check_name_and_fingerprint(backend)
    artifacts = contract.check_compile(backend, networks.cases(), tmp_path / "files", library)
    assert len({artifact.sha256 for artifact in artifacts.values()}) == len(artifacts)
    anchor = backend.anchor(tmp_path)
    assert anchor.provenance["precision"] == "fp32"
    mixed = TensorRTBackend(library="tensorrt_rtx", precision=precision, fp32_parts=parts)
    assert bool(parts) == (mixed.build_facts() != backend.build_facts())


@rtx
def test_per_part_precision_reaches_the_engine(library: GraphLibrary, tmp_path: Path) -> None:
    network, feeds = networks.whole(networks.VISION, Workload())
    sizes = {}
    for parts in ((), ("stem", "attention.*", "ffn.*", "head")):
        backend = TensorRTBackend(library="tensorrt_rtx", precision="fp16", fp32_parts=parts)
        path = tmp_path / f"{len(parts)}.engine"
        backend.compile(network, feeds, path, library=library, facts={})
        sizes[parts] = path.read_bytes()
    assert len(set(sizes.values())) == 2


@rtx
def test_an_engine_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TensorRTBackend(library="tensorrt_rtx")
    first = backend.anchor(tmp_path)
    assert len(list(user_cache("engines").glob("*.engine"))) == 1

    def fails(*arguments: object, **keywords: object) -> bytes:
        raise AssertionError("built again")

    monkeypatch.setattr(ThisHost, "build", fails)
    assert backend.anchor(tmp_path).sha256 == first.sha256
    with pytest.raises(AssertionError, match="built again"):
        TensorRTBackend(library="tensorrt_rtx", tf32=True).anchor(tmp_path)


@rtx
def test_refusals() -> None:
    with pytest.raises(Refused, match="tensorrt_rtx does not read the model"):
        build_engine(b"not a model", library="tensorrt_rtx", shapes={})


@rtx
@pytest.mark.skipif(nvidia.missing() is None, reason="there is a GPU")
def test_without_a_gpu(tmp_path: Path, tiny: TimingConfig) -> None:
    backend = TensorRTBackend(library="tensorrt_rtx")
    assert backend.missing() == f"this host: {nvidia.missing()}"
    with pytest.raises(UserError, match="sees no CUDA device"):
        backend.run_session([backend.anchor(tmp_path)], tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_on_a_gpu(
    name: str,
    precision: str,
    cuda_graph: bool,
    library: GraphLibrary,
    tmp_path: Path,
    tiny: TimingConfig,
) -> None:
    if name not in INSTALLED:
        pytest.skip(f"needs {name}")
    backend = TensorRTBackend(library=name, precision=precision, cuda_graph=cuda_graph)
    made = contract.check_compile(backend, networks.cases(), tmp_path / "files", library)
    anchor = backend.anchor(tmp_path)
    samples = contract.check_session(backend, [anchor, *made.values()], tiny)
    assert samples[0].session["cuda_graph"] == cuda_graph
    stale = dataclasses.replace(made["vit"], sha256="0" * 64)
    contract.check_rejects_changed_file(backend, anchor, stale, tiny)
