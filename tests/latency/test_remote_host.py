"""Other runtimes than onnxruntime on a device behind SSH; its Python is that of these tests."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from latency import nvidia
from latency.artifact import Artifact, build_artifact
from latency.backend import ModelRejectedError
from latency.coreml_backend import CoreMLBackend
from latency.graphs import GraphLibrary
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.place import ThisHost
from latency.remote_host import pack_folder
from latency.tensorrt_backend import TensorRTBackend
from latency.timing import TimingConfig
from latency.torch_backend import TorchBackend
from latency.user_cache import user_cache
from search_spaces.errors import UserError
from tests.latency import contract, networks
from tests.latency.remote_device import Device, Server, remote_device

RTX = importlib.util.find_spec("tensorrt_rtx") is not None
rtx = pytest.mark.skipif(not RTX, reason="needs tensorrt_rtx")


@pytest.fixture
def gpu_host(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device with all runtimes that are installed here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with remote_device(tmp_path / "device", Path(sys.executable), server) as device:
        yield device


@pytest.mark.slow
def test_torch(gpu_host: Device, library: GraphLibrary, tmp_path: Path, tiny: TimingConfig) -> None:
    with closing(TorchBackend(place=gpu_host.place())) as backend:
        contract.check_name_and_fingerprint(backend)
        assert backend.fingerprint().keys() > TorchBackend().fingerprint().keys()
        cases = {name: networks.cases()[name] for name in ("vit", "decode-chain")}
        made = contract.check_compile(backend, cases, tmp_path / "files", library)
        contract.check_session(backend, [backend.anchor(tmp_path), *made.values()], tiny)


@rtx
@pytest.mark.parametrize("fault", [None, "cut"])
def test_an_engine_is_built_on_the_device(
    gpu_host: Device, fault: str | None, tmp_path: Path
) -> None:
    with closing(TensorRTBackend(library="tensorrt_rtx", place=gpu_host.place())) as backend:
        assert backend.build_facts() == TensorRTBackend(library="tensorrt_rtx").build_facts()
        if fault is not None:
            gpu_host.proxy.plan(fault, 60_000)
        anchor = backend.anchor(tmp_path)
        assert gpu_host.proxy.fired == (fault is not None)
        assert (gpu_host.folder / "files" / anchor.sha256).read_bytes() == anchor.path.read_bytes()
        assert [path.suffix for path in user_cache("engines").iterdir()] == [".engine"]
        if nvidia.missing() is not None:
            assert str(backend.missing()).startswith("127.0.0.1:")


@rtx
def test_a_model_that_the_builder_refuses(gpu_host: Device) -> None:
    request = {"library": "tensorrt_rtx", "shapes": {}, "tf32": False}
    refused = "tensorrt_rtx does not read the model"
    with closing(gpu_host.place()) as place, pytest.raises(UserError, match=refused):
        place.build(request, b"not a model", "0" * 64)
    with pytest.raises(UserError, match=f"this host: {refused}"):
        ThisHost().build(request, b"not a model", "0" * 64)


def test_a_folder_arrives_whole(
    device: Device, models: dict[str, Artifact], tmp_path: Path, tiny: TimingConfig
) -> None:
    """Its hash is compared there; then onnxruntime, which reads files only, refuses it."""
    folder = tmp_path / "model.mlpackage"
    (folder / "Data" / "weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "Data" / "weights" / "weight.bin").write_bytes(bytes(range(256)) * 400)
    assert pack_folder(folder) == pack_folder(folder)
    values = {"x": np.zeros(1, np.float32)}
    artifact = build_artifact(folder, inputs=values, outputs=values)
    refused = pytest.raises(ModelRejectedError, match=r"Is a directory: .*\.mlpackage")
    with closing(device.backend()) as backend, refused:
        backend.run_session([models["anchor"], artifact], tiny)


def test_a_runtime_that_is_not_there(device: Device) -> None:
    with closing(device.place()) as place:
        for backend, module in (
            (TorchBackend(place=place), "torch"),
            (TensorRTBackend(place=place), "tensorrt"),
        ):
            wanted = f"127.0.0.1:{device.proxy.port} has no {module} for Python"
            assert str(backend.missing()).startswith(wanted)
            with pytest.raises(UserError, match=f"log in and run .*pip install {module}"):
                backend.fingerprint()
        cuda = OnnxRuntimeBackend(threads=1, provider="CUDAExecutionProvider", place=place)
        assert "CUDAExecutionProvider is not in onnxruntime" in str(cuda.missing())
        assert "in Xcode" in str(CoreMLBackend(target="iphone", place=place).missing())
