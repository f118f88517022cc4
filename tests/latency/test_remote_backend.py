import dataclasses
import os
import shutil
import signal
import threading
import venv
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from latency.artifact import Artifact
from latency.backend import DeviceLostError, SessionTimeoutError
from latency.database import connect
from latency.host_facts import available_cpus
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.preparation import Preparation
from latency.protocol import measure
from latency.remote_host import RemoteHost
from latency.store import LatencyStore
from latency.timing import TimingConfig
from search_spaces.errors import UserError
from tests.latency import contract
from tests.latency.remote_device import Device, Server, wait_for

pytestmark = pytest.mark.slow

Models = dict[str, Artifact]


@pytest.fixture
def backend(device: Device) -> Iterator[OnnxRuntimeBackend]:
    with closing(device.backend()) as backend:
        yield backend


def started_at(backend: OnnxRuntimeBackend, models: list[Artifact], timing: TimingConfig) -> object:
    return backend.run_session(models, timing)[0].session["started_at"]


def test_fingerprint(backend: OnnxRuntimeBackend) -> None:
    contract.check_name_and_fingerprint(backend)
    assert backend.fingerprint()["device"]


def test_session(backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig) -> None:
    chosen = [models["anchor"], models["small"], models["large"]]
    samples = contract.check_session(backend, chosen, tiny)
    facts = samples[0].session
    assert facts["throttled"] == []
    assert facts["provider"] == "CPUExecutionProvider"
    medians = [min(block.median_ns for block in one.blocks) for one in samples]
    assert medians[1] < medians[2]


def test_preparation(device: Device, models: Models, tiny: TimingConfig) -> None:
    cpu = available_cpus()[-1]
    wanted = Preparation(affinity=(cpu,), governor="performance", cool_to_c=149.0)
    backend = OnnxRuntimeBackend(threads=1, place=device.place(preparation=wanted))
    with closing(backend):
        contract.check_pinned(backend, [models["anchor"]], tiny, cpu)
        prepared: Any = backend.run_session([models["anchor"]], tiny)[0].session["prepared"]
        unmet = wanted.unmet(backend.place.describe(), backend.place.name)
    assert set(prepared) == {"governor", "cooling"}
    # What the agent could not do is what was foretold
    refused = prepared["governor"]["problem"] is not None
    assert refused == any("governor performance cannot be set on 127" in line for line in unmet)


def test_order_follows_seed(
    backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig
) -> None:
    contract.check_order_follows_seed(backend, [models["anchor"], models["small"]], tiny)


def test_rejections(backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig) -> None:
    contract.check_rejections(backend, models, tiny)


def test_timeout_names_the_model_and_leaves_nothing(
    device: Device,
    backend: OnnxRuntimeBackend,
    models: Models,
    tiny: TimingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TimingConfig, "estimate_s", lambda self, count: 0.01)
    timing = dataclasses.replace(tiny, min_timeout_s=1.5)
    with pytest.raises(SessionTimeoutError, match="longer than 2 s") as caught:
        backend.run_session([models["anchor"], models["endless"]], timing)
    assert caught.value.sha256 == models["endless"].sha256
    wait_for(lambda: not device.processes("session"))
    backend.close()
    wait_for(lambda: not device.processes("serve"))
    assert not list(device.folder.glob("*.pyz"))


def test_missing_provider(device: Device, models: Models, tiny: TimingConfig) -> None:
    refused = pytest.raises(
        UserError, match=r"127.*: TensorrtExecutionProvider is not in onnxruntime"
    )
    with closing(device.backend(provider="TensorrtExecutionProvider")) as backend, refused:
        backend.run_session([models["anchor"]], tiny)


def test_too_many_threads(device: Device) -> None:
    refused = pytest.raises(UserError, match=r"threads 9999 is not in 1\.\..*the CPUs of 127")
    with closing(device.backend(threads=9999)) as backend, refused:
        backend.fingerprint()


def test_no_runtime(server: Server, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    transport = server.transport(tmp_path / "bare" / "bin" / "python")
    bare = OnnxRuntimeBackend(
        threads=1, place=RemoteHost(transport, folder=str(tmp_path / "agent"))
    )
    with closing(bare), pytest.raises(UserError, match=r"has no onnxruntime.*pip install"):
        bare.fingerprint()


def test_a_device_that_is_off(device: Device) -> None:
    device.proxy.close()
    with pytest.raises(UserError, match=r"is lost: cannot connect .*; check that it is on"):
        device.backend().fingerprint()


def test_a_device_that_becomes_another(device: Device) -> None:
    place = device.place()
    description = dict(place.describe())
    kernel = description["fingerprint"]["kernel"]
    place._description = description | {
        "fingerprint": description["fingerprint"] | {"kernel": "old"}
    }
    place.close()
    with pytest.raises(UserError, match=f"kernel was 'old' and is '{kernel}'; run the same"):
        place.clean()


@pytest.mark.parametrize("kind", ["cut", "stall", "corrupt"])
def test_a_fault_in_a_session_is_mended(
    device: Device, models: Models, tiny: TimingConfig, kind: str
) -> None:
    wanted = [models["anchor"], models["small"]]
    with closing(device.backend(silence_s=2.0)) as backend:
        backend.fingerprint()
        timing = dataclasses.replace(tiny, warmup_s=1.5)
        device.proxy.plan(kind, 200_000)  # into the upload, or into signs of life
        contract.check_session(backend, wanted, timing)
        assert device.proxy.fired == 1


def test_a_link_that_stays_cut_loses_the_device_but_not_its_session(
    device: Device, models: Models, tiny: TimingConfig
) -> None:
    wanted, slow = [models["anchor"], models["small"]], dataclasses.replace(tiny, warmup_s=1.0)

    measuring: list[int] = []

    def cut() -> None:
        measuring.extend(wait_for(lambda: device.processes("session")))
        device.proxy.cut_now()

    with closing(device.backend(link_retries=0)) as backend:
        backend.fingerprint()
        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(DeviceLostError, match="is lost"):
            backend.run_session(wanted, slow)
        cutter.join()
        samples = contract.check_session(backend, wanted, slow)
    assert [samples[0].session["pid"]] == measuring


def test_garbage_in_the_output_of_the_agent(
    device: Device, models: Models, tiny: TimingConfig
) -> None:
    device.babble(0)  # a login shell's banner
    with closing(device.backend()) as backend:
        backend.fingerprint()
        assert device.babbled
        device.babble(3000)  # in the middle of a result
        contract.check_session(backend, [models["anchor"], models["small"]], tiny)
        assert device.babbled


def test_a_result_outlives_this_host(device: Device, models: Models, tiny: TimingConfig) -> None:
    """The process that asked for a session dies; the next one that asks gets its result."""
    wanted = [models["anchor"], models["small"]]
    first = device.backend()
    began = started_at(first, wanted, tiny)
    first.place._received = None  # type: ignore[attr-defined] # as if it died before it stored the session
    first.close()
    with closing(device.backend()) as second:
        assert started_at(second, wanted, tiny) == began
        assert started_at(second, wanted, tiny) != began  # received: now it is measured anew


def test_a_killed_agent_costs_the_session_in_work_at_most(
    device: Device, backend: OnnxRuntimeBackend, models: Models, tiny: TimingConfig
) -> None:
    wanted = [models["anchor"], models["small"]]
    backend.fingerprint()
    assert device.kill("serve")
    contract.check_session(backend, wanted, tiny)
    shutil.rmtree(device.folder / "files")
    (device.folder / "files").mkdir()
    contract.check_session(backend, wanted, tiny)


def test_clean(device: Device, models: Models, tiny: TimingConfig) -> None:
    with closing(device.backend()) as backend:
        backend.run_session([models["anchor"]], tiny)
    device.place().clean()
    assert not device.folder.exists()


def test_a_flaky_device_gives_every_session_once(
    device: Device, models: Models, tiny: TimingConfig, tmp_path: Path
) -> None:
    plan, seen, done = iter([True, False, True, False]), set[int](), threading.Event()

    def kill_some() -> None:
        while not done.wait(0.02):
            for pid in set(device.processes("session")) - seen:
                seen.add(pid)
                if next(plan, False):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_some)
    killer.start()
    store = LatencyStore(connect(tmp_path / "run.db"))
    try:
        with closing(device.backend()) as backend:
            wanted = models["small"]
            found = measure([wanted], backend=backend, timing=tiny, store=store, lease="flaky")
            rows = store.sessions(store.add_device(backend.fingerprint()))
    finally:
        done.set()
        killer.join()
    assert found[wanted.sha256].status == "ok"
    assert [row["outcome"] for row in rows] == ["lost", "accepted", "lost", "accepted"]
    assert [row["seed"] for row in rows] == [0, 0, 1, 1]
    assert "SIGKILL" in rows[0]["message"]
    assert rows[1]["facts"]["pid"] != rows[3]["facts"]["pid"]
