import dataclasses
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from latency.artifact import Artifact
from latency.backend import DeviceLostError, ModelRejectedError, SessionTimeoutError
from latency.graphs import GraphLibrary
from latency.host_facts import available_cpus
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.onnxruntime_session import IDENTITY, OnnxRuntime
from latency.place import ThisHost
from latency.preparation import Preparation
from latency.session import Refused
from latency.timing import TimingConfig
from search_spaces.errors import UserError
from tests.latency import contract, networks

Models = dict[str, Artifact]


@pytest.fixture
def backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(threads=1)


def test_fingerprint(backend: OnnxRuntimeBackend) -> None:
    contract.check_name_and_fingerprint(backend)
    assert backend.fingerprint()["threads"] == "1"
    spinning = OnnxRuntimeBackend(threads=1, spinning=True)
    assert spinning.fingerprint() != backend.fingerprint()


def test_session(backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig) -> None:
    chosen = [models["anchor"], models["small"], models["large"]]
    samples = contract.check_session(backend, chosen, tiny)
    facts = samples[0].session
    assert facts["threads"] == 1
    assert facts["provider"] == "CPUExecutionProvider"
    assert facts["pid"] != 0
    medians = [min(block.median_ns for block in one.blocks) for one in samples]
    assert medians[1] < medians[2]


@pytest.mark.slow
def test_affinity(models: Models, tiny: TimingConfig) -> None:
    cpu = available_cpus()[-1]
    place = ThisHost(Preparation(affinity=(cpu,)))
    pinned = OnnxRuntimeBackend(threads=1, place=place)
    contract.check_pinned(pinned, [models["anchor"]], tiny, cpu)
    absent = OnnxRuntimeBackend(threads=1, place=ThisHost(Preparation(affinity=(4096,))))
    with pytest.raises(UserError, match=r"affinity \[4096\] is not within the CPUs \[.*this host"):
        absent.fingerprint()


@pytest.mark.slow
def test_order_follows_seed(
    backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig
) -> None:
    contract.check_order_follows_seed(backend, [models["anchor"], models["small"]], tiny)


def test_rejections(backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig) -> None:
    contract.check_rejections(backend, models, tiny)


def test_timeout_names_the_model_and_ends_the_process(
    backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimingConfig, "estimate_s", lambda self, count: 0.01)
    timing = dataclasses.replace(tiny, min_timeout_s=1.5)
    start = time.monotonic()
    with pytest.raises(SessionTimeoutError, match="longer than 2 s") as caught:
        backend.run_session([models["anchor"], models["endless"]], timing)
    assert time.monotonic() - start < 10
    assert caught.value.sha256 == models["endless"].sha256


def test_a_dead_process_is_lost(
    backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DeviceLostError, match="exit code 1"):
        backend.run_session([models["anchor"]], tiny)


def test_compile_and_run(
    backend: OnnxRuntimeBackend,
    models: Models,
    library: GraphLibrary,
    tmp_path: Path,
    tiny: TimingConfig,
) -> None:
    made = contract.check_compile(backend, networks.cases(), tmp_path / "files", library)
    samples = contract.check_session(backend, [models["anchor"], *made.values()], tiny)
    assert max(one.max_abs_difference for one in samples[1:]) < 1e-5


def test_nodes_are_counted_by_provider(
    backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig
) -> None:
    facts = backend.run_session([models["anchor"], models["large"]], tiny)[0].session
    anchor, large = facts["nodes"]  # type: ignore[misc]
    assert anchor["CPUExecutionProvider"] > 20
    assert large == {"CPUExecutionProvider": 8}


AZURE = "AzureExecutionProvider"


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"needs {AZURE}")
def test_silent_fallback_is_refused(models: Models, tiny: TimingConfig) -> None:
    # This provider loads, takes no node, and leaves the whole model to the CPU.
    backend = OnnxRuntimeBackend(threads=1, provider=AZURE)
    with pytest.raises(ModelRejectedError, match=f"{AZURE} takes no node of this model; CPU"):
        backend.run_session([models["anchor"]], tiny)


OPENVINO = "OpenVINOExecutionProvider"


@pytest.mark.parametrize(
    ("provider", "allowed"),
    [
        ("CPUExecutionProvider", "none"),
        (AZURE, "none"),
        ("XnnpackExecutionProvider", "only intra_op_num_threads"),
    ],
)
def test_an_option_that_would_be_ignored(provider: str, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        OnnxRuntimeBackend(threads=1, provider=provider, options={"use_arena": True})
    assert str(caught.value) == (
        f"option 'use_arena' of {provider}: it takes {allowed}, and ignores others; remove it"
    )


def test_the_cpu_provider_still_ignores_all_options() -> None:
    # If this fails, a newer onnxruntime has options to offer: see READ
    session = onnxruntime.InferenceSession(
        IDENTITY, providers=[("CPUExecutionProvider", {"nonsense": "1"})]
    )
    assert session.get_provider_options() == {"CPUExecutionProvider": {}}


def _request(**changes: object) -> dict[str, object]:
    asked = {"provider": OPENVINO, "options": {}, "models": [], "threads": 1, "spinning": False}
    return {**asked, **changes}


@pytest.mark.skipif(
    OPENVINO in onnxruntime.get_available_providers(), reason=f"this onnxruntime has {OPENVINO}"
)
def test_a_provider_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a package has the provider, and the machine lacks its libraries
    there = [OPENVINO, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Refused) as caught:
            OnnxRuntime(_request(options={"num_streams": "1"}))
    assert str(caught.value).startswith(f"{OPENVINO} does not load (it says no more); install ")


@pytest.mark.parametrize(
    ("known", "error", "reason"),
    [
        ({}, "/a/b.cc:7 int f(const A&, B) Unknown option: nonsense\n", "Unknown option: nonsense"),
        ({"device_id": "0"}, None, "nonsense is not one of device_id"),
    ],
)
def test_options_that_a_provider_does_not_know(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, str], error: str | None, reason: str
) -> None:
    """Providers that throw, and those that tell what they have; neither runs on every machine."""

    class Session:
        def __init__(self, model: bytes, *, providers: Any, **_: object) -> None:
            if error and providers[0][1]:
                raise RuntimeError(error)

        def get_providers(self) -> list[str]:
            return [OPENVINO]

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return {OPENVINO: known}

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(Refused) as caught:
        OnnxRuntime(_request(options={"nonsense": "1"}))
    assert str(caught.value) == (
        f"{OPENVINO} does not take the options nonsense: 1 ({reason}); correct or remove them in "
        "the device profile"
    )
    OnnxRuntime(_request(options={"device_id": "0"} if known else {}))


@pytest.mark.skipif(
    OPENVINO not in onnxruntime.get_available_providers(), reason="needs onnxruntime-openvino"
)
def test_options_reach_openvino(models: Models, tiny: TimingConfig) -> None:
    backend = OnnxRuntimeBackend(threads=1, provider=OPENVINO, options={"num_streams": 1})
    assert backend.fingerprint()["provider_options"] == '{"num_streams": "1"}'
    assert backend.missing() is None
    facts = backend.run_session([models["small"]], tiny)[0].session
    assert facts["provider_options"] == {"num_streams": "1"}
    for options, reason in (
        ({"nonsense": 1}, "(Invalid OpenVINO EP option: nonsense)"),
        ({"num_of_threads": "x"}, "(it says no more)"),
    ):
        wrong = OnnxRuntimeBackend(threads=1, provider=OPENVINO, options=options)
        assert f"does not take the options {next(iter(options))}: " in str(wrong.missing())
        assert reason in str(wrong.missing())
        with pytest.raises(UserError, match="correct or remove them in the device profile"):
            wrong.run_session([models["small"]], tiny)


def test_missing_provider(models: Models, tiny: TimingConfig) -> None:
    backend = OnnxRuntimeBackend(threads=1, provider="TensorrtExecutionProvider")
    with pytest.raises(UserError, match="TensorrtExecutionProvider is not in onnxruntime"):
        backend.run_session([models["anchor"]], tiny)


def test_too_many_threads() -> None:
    backend = OnnxRuntimeBackend(threads=9999)
    with pytest.raises(UserError, match=r"threads 9999 is not in 1\.\..*, the CPUs of this host"):
        backend.fingerprint()
    assert str(backend.missing()).startswith("threads 9999")


_PARENT = """
import sys
from pathlib import Path
from latency.artifact import load_artifact
from latency.graphs import GraphLibrary
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.timing import TimingConfig
model = load_artifact(Path(sys.argv[1]))
OnnxRuntimeBackend(threads=1).run_session([model], TimingConfig.quick())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_parent_leaves_no_orphan(models: Models) -> None:
    command = [sys.executable, "-c", _PARENT, str(models["endless"].path)]
    parent = subprocess.Popen(command)
    try:
        child = _wait_for(lambda: _children(parent.pid))[0]
        time.sleep(0.7)  # into the endless run
    finally:
        parent.kill()
        parent.wait()
    _wait_for(lambda: not _running(child))


def _wait_for(condition, timeout_s: float = 10.0):  # type: ignore[no-untyped-def]
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _children(pid: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [child for child in pids if _stat(child)[1] == str(pid)]


def _running(pid: int) -> bool:
    return _stat(pid)[0] not in "XZ"
