"""PyTorch on this host's CPU, really run; on a GPU where there is one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latency.artifact import Artifact, build_artifact
from latency.database import connect
from latency.export import export_network
from latency.graphs import GraphLibrary
from latency.host_facts import available_cpus
from latency.place import ThisHost
from latency.preparation import Preparation
from latency.store import LatencyStore
from latency.table_measurement import measure_table
from latency.timing import TimingConfig
from latency.torch_backend import TorchBackend
from search_spaces import Workload
from search_spaces.errors import UserError
from tests.latency import contract, networks

pytestmark = pytest.mark.slow

torch.set_num_threads(1)


def build(backend: TorchBackend, library: GraphLibrary, folder: Path) -> dict[str, Artifact]:
    """Models as the contract wants them."""

    def export(name: str, width: int, layers: int) -> Artifact:
        network, feeds = networks.linear(width, layers)
        path = folder / f"{name}{backend.suffix}"
        return export_network(network, feeds, path, backend=backend, library=library, provenance={})

    wrong = export("wrong", 16, 1)
    outputs = np.load(wrong.feeds)["output:y"]
    broken = folder / "broken.pt2"
    broken.write_bytes(b"not a program")
    one = np.zeros(1, np.float32)
    return {
        "anchor": backend.anchor(folder),
        "small": export("small", 32, 1),
        "large": export("large", 768, 8),
        "wrong": build_artifact(
            wrong.path, inputs={"x": np.ones((1, 16), np.float32)}, outputs={"y": outputs + 1}
        ),
        "broken": build_artifact(broken, inputs={"x": one}, outputs={"y": one}),
    }


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend()


@pytest.fixture(scope="module")
def models(
    backend: TorchBackend, library: GraphLibrary, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    return build(backend, library, tmp_path_factory.mktemp("torch"))


def test_fingerprint(backend: TorchBackend) -> None:
    contract.check_name_and_fingerprint(backend)
    facts = backend.fingerprint()
    assert facts["runtime"].startswith("torch 2.")
    assert backend.missing() is None
    for other in (TorchBackend(mode="compile"), TorchBackend(precision="bf16")):
        assert other.fingerprint() != facts


def test_session(backend: TorchBackend, models: dict[str, Artifact], tiny: TimingConfig) -> None:
    chosen = [models["anchor"], models["small"], models["large"]]
    samples = contract.check_session(backend, chosen, tiny)
    facts = samples[0].session
    assert facts["threads"] == 1
    assert facts["device"] == "cpu"
    assert facts["mode"] == "eager"
    assert "onnxruntime" not in facts
    medians = [min(block.median_ns for block in one.blocks) for one in samples]
    assert medians[1] < medians[2]


def test_affinity(models: dict[str, Artifact], tiny: TimingConfig) -> None:
    cpu = available_cpus()[-1]
    pinned = TorchBackend(place=ThisHost(Preparation(affinity=(cpu,))))
    contract.check_pinned(pinned, [models["anchor"]], tiny, cpu)


@pytest.mark.slow
def test_order_follows_seed(
    backend: TorchBackend, models: dict[str, Artifact], tiny: TimingConfig
) -> None:
    contract.check_order_follows_seed(backend, [models["anchor"], models["small"]], tiny)


def test_rejections(backend: TorchBackend, models: dict[str, Artifact], tiny: TimingConfig) -> None:
    contract.check_rejections(backend, models, tiny)


def test_compile_and_run(
    backend: TorchBackend, library: GraphLibrary, tmp_path: Path, tiny: TimingConfig
) -> None:
    artifacts = contract.check_compile(backend, networks.cases(), tmp_path / "files", library)
    anchor = backend.anchor(tmp_path)
    samples = contract.check_session(backend, [anchor, *artifacts.values()], tiny)
    assert max(one.max_abs_difference for one in samples) < 1e-5


def test_bf16_differs_within_its_tolerance(
    library: GraphLibrary, tmp_path: Path, tiny: TimingConfig
) -> None:
    backend = TorchBackend(precision="bf16")
    network, feeds = networks.whole(networks.VISION, Workload())
    made = export_network(
        network,
        feeds,
        tmp_path / "vit.pt2",
        backend=backend,
        library=library,
        provenance={},
    )
    models = [backend.anchor(tmp_path), made]
    difference = backend.run_session(models, tiny)[1].max_abs_difference
    assert 1e-4 < difference < 0.1


@pytest.mark.slow
def test_compiled_mode(library: GraphLibrary, tmp_path: Path, tiny: TimingConfig) -> None:
    backend = TorchBackend(mode="compile")
    network, feeds = networks.whole(networks.TEXT, networks.DECODE)
    made = export_network(
        network,
        feeds,
        tmp_path / "decode.pt2",
        backend=backend,
        library=library,
        provenance={},
    )
    samples = contract.check_session(backend, [backend.anchor(tmp_path), made], tiny)
    assert samples[0].session["mode"] == "compile"
    assert samples[1].max_abs_difference < 1e-4


@pytest.mark.slow
def test_a_table_is_measured(
    backend: TorchBackend,
    library: GraphLibrary,
    tmp_path: Path,
    tiny: TimingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connection = connect(tmp_path / "run.db")
    try:
        table, _ = measure_table(
            networks.VISION,
            {"latency": Workload()},
            backend=backend,
            timing=tiny,
            store=LatencyStore(connection),
            library=library,
            folder=tmp_path / "chains",
        )
    finally:
        connection.close()
    assert {row.block for row in table.rows} == set(networks.VISION.all_blocks())
    assert all(row.latency_ms > 0 for row in table.rows if row.block.kind == "fixed")
    assert not list((tmp_path / "chains").glob("*.onnx"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "option device 'tpu' of the torch backend: use cpu, cuda"),
        ({"mode": "fast"}, "use eager, compile"),
        ({"precision": "int3"}, "use fp32, fp16, bf16"),
        ({"cuda_graph": "yes"}, "use true, false"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(UserError, match=message):
        TorchBackend(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(models: dict[str, Artifact], tiny: TimingConfig) -> None:
    backend = TorchBackend(device="cuda")
    with pytest.raises(UserError, match="sees no CUDA device"):
        backend.run_session([models["anchor"]], tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "compile"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_on_a_gpu(
    mode: str, cuda_graph: bool, library: GraphLibrary, tmp_path: Path, tiny: TimingConfig
) -> None:
    backend = TorchBackend(device="cuda", mode=mode, cuda_graph=cuda_graph)
    contract.check_name_and_fingerprint(backend)
    models = build(backend, library, tmp_path)
    made = contract.check_compile(backend, networks.cases(), tmp_path / "files", library)
    chosen = [models["anchor"], models["small"], models["large"], *made.values()]
    samples = contract.check_session(backend, chosen, tiny)
    facts = samples[0].session
    assert facts["device"] == "cuda"
    walls = facts["wall_ns"]
    for one, wall in zip(samples, walls, strict=True):  # type: ignore[call-overload]
        assert min(block.low_quartile_ns for block in one.blocks) <= wall
    contract.check_rejects_wrong_outputs(
        backend, models["anchor"], models["small"], models["wrong"], tiny
    )
