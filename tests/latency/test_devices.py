import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latency import host_facts, nvidia
from latency.absent import profile_of
from latency.backends import open_backend
from latency.device_profile import DeviceProfile
from latency.devices import BOARDS, builtin_devices, get_device, list_devices, obstacle
from latency.doctor import doctor
from latency.lease import device_lease
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.preparation import Preparation
from latency.remote_profile import clean_device
from latency.table_store import TableIdentity
from search_spaces.errors import UserError
from tests.latency import contract
from tests.latency.remote_device import Device


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "devices").mkdir()


def test_builtin() -> None:
    assert get_device("cpu").threads == len(os.sched_getaffinity(0))
    assert get_device("cpu-1t") == DeviceProfile(name="cpu-1t", threads=1)
    assert open_backend(get_device("cpu-1t")).fingerprint()["threads"] == "1"
    assert get_device("raspberry-pi-5").spins
    for keys, spinning in (
        ({}, "off"),
        ({"threads": 2}, "on"),
        ({"threads": 2, "spinning": False}, "off"),
    ):
        opened = open_backend(DeviceProfile(name="x", **keys))  # type: ignore[arg-type]
        assert opened.fingerprint()["spinning"] == spinning


def test_own_profiles(tmp_path: Path) -> None:
    (tmp_path / "devices" / "half.yaml").write_text("threads: 2\nspinning: false\n")
    config = tmp_path / "config" / "elastic-nas" / "devices"
    config.mkdir(parents=True)
    (config / "x.yaml").write_text("name: lab\n")
    assert get_device("half") == DeviceProfile(name="half", threads=2, spinning=False)
    assert [*list_devices()[0]] == [*builtin_devices(), "half", "lab"]
    with pytest.raises(UserError, match=r"'pi5' is not one of cpu, cpu-1t, .*half.*; add devices"):
        get_device("pi5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("thread: 1", "'thread' is not one of name, backend, threads"),
        ("thread: 1", "folder; did you mean threads?"),
        ("fan: 1", "folder; remove it"),
        ("threads: many", "threads 'many' of device bad is not a whole number of at least 1"),
        ("threads: 1\nthreads: 2", "line 2: the key threads is there twice, first in line 1"),
        ("threads: true", "threads True"),
        ("spinning: 3", "true or false"),
        ("transport: pigeon", "transport 'pigeon' of device bad is not one of local, ssh"),
        ("transport: ssh\nhost: -oProxyCommand=x", "is not a host's name"),
        ("host: 5", "host 5 of device bad is not a text"),
        ("host: pi5.local", "host 'pi5.local' of device bad is for a device behind SSH; write `t"),
        ("user: bob", "user 'bob' of device bad is for a device behind SSH"),
        ("port: 2222\npython: python3", "port 2222 of device bad is for a device behind SSH"),
        ("port: 0", "port 0 of device bad is not in 1..65535"),
        ("name: raspberry-pi-5\nport: x", "port 'x' of device raspberry-pi-5"),
        (
            "backend: abacus",
            "backend 'abacus' of device bad is not one of coreml, onnxruntime, tensorrt",
        ),
        ("name: cpu", "the device name cpu is taken by the built-in one"),
        ("options: fast", "options 'fast' of device bad is not a mapping"),
        ("options: {1: 2}", "is not a mapping"),
        ("name: ../up", "use letters"),
        ("backend: torch\nspinning: false", "spinning False of device bad is for backend onnxrunt"),
        ("backend: coreml\nthreads: 2", "threads 2 of device bad is for backend onnxruntime and "),
        ("affinity: [x]", "device bad: affinity ['x'] is not a list of CPUs; write [2, 3], say"),
        ("threads: 3\naffinity: [1, 2]", "threads 3 of device bad are more than the 2 CPUs of"),
        ("prepare: performance", "prepare 'performance' is not a mapping; write `prepare:`"),
        ("prepare: {fan: on}", "prepare 'fan' is not one of governor, cool_to_c; remove it"),
        ("prepare: {governor: 5}", "prepare governor 5 is not a name; write performance, say"),
        ("prepare: {cool_to_c: 700}", "prepare cool_to_c 700 is not in 0..150, degree C"),
        ("precisions: fp32", "precisions 'fp32' of device bad is not a list; write [fp32], say"),
        (
            "backend: coreml\nprecisions: [fp32, bf16]",
            "precision 'bf16' of device bad is not one of fp32, fp16, which backend coreml offers",
        ),
        ("workloads: [a]", "workloads of device bad: ['a'] is not a mapping; write `name: {b"),
        ("workloads: {a: {bach: 2}}", "device bad: a: 'bach' is not one of batch, sequence, past"),
        ("workloads: {a: {batch: many}}", "device bad: a: batch 'many' is not a whole number"),
        ("workloads: {a: {batch: 0}}", "device bad: a: workload batch 0 is below 1; give at l"),
        ("- 1", "holds no"),
        ("a: [", "bad.yaml, line 1: "),
    ],
)
def test_bad_profiles(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "devices" / "bad.yaml").write_text(content)
    (tmp_path / "devices" / "good.yaml").write_text("threads: 1\n")
    profiles, broken = list_devices()
    ((name, line),) = broken.items()
    with pytest.raises(UserError) as caught:
        get_device(name)
    assert str(caught.value) == line
    assert message in line
    assert line.startswith("devices/bad.yaml")
    assert "\n" not in line
    # The others are as if it were not there
    assert {*profiles} == {*builtin_devices(), "good"} - {name}
    assert get_device("good").threads == get_device("cpu-1t").threads


def test_files_that_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "devices"
    (folder / "empty.yaml").write_text("")
    (folder / "latin.yaml").write_bytes(b"host: caf\xe9\n")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to("nowhere")
    (folder / "marked.yaml").write_bytes(b"\xef\xbb\xbfthreads: 1\n")  # as editors write it
    profiles, broken = list_devices()
    assert list(broken) == ["empty", "folder", "gone", "latin"]
    assert broken["empty"].startswith("devices/empty.yaml holds no `key: value` lines")
    assert broken["latin"].startswith("devices/latin.yaml is not readable: 'utf-8' codec")
    assert broken["folder"].startswith("devices/folder.yaml is not readable: [Errno 21]")
    assert broken["gone"].startswith("devices/gone.yaml is not readable: [Errno 2]")
    assert profiles["marked"].threads == 1


def test_a_precision_that_the_device_has_not() -> None:
    half = {"precision": "fp16"}
    assert get_device("jetson-orin").offered == ("fp32", "fp16")
    small = DeviceProfile(name="t", backend="torch", precisions=["fp32"], options=half)
    with pytest.raises(UserError) as caught:
        open_backend(small)
    assert str(caught.value).startswith(
        "device t: models in fp16 are asked for, but it offers fp32; change `precision` below"
    )
    (check,) = doctor(small)
    assert (check.ok, check.message) == (False, str(caught.value))


def test_affinity_on_a_system_that_pins_nothing() -> None:
    backend = open_backend(DeviceProfile(name="m", affinity=[0]))
    here = dict(backend.place.describe())
    backend.place._description = {**here, "platform": "darwin"}  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"affinity \[0\]: this host is darwin, which pins no"):
        backend.fingerprint()


@pytest.mark.parametrize(
    ("backend", "there", "message"),
    [
        ("torch", {"numpy": None}, "numpy is not installed; pip install numpy"),
        ("onnxruntime", {"onnxruntime": "1.20.1"}, "1.20.1 of this host is too old for these mod"),
        ("onnxruntime", {"onnxruntime": "1.23.0rc1"}, None),
    ],
)
def test_a_runtime_that_is_not_enough(
    backend: str, there: dict[str, str | None], message: str | None
) -> None:
    opened = open_backend(DeviceProfile(name="t", backend=backend))
    here = dict(opened.place.describe())
    packages = {**here["packages"], **there}
    opened.place._description = {**here, "packages": packages}  # type: ignore[attr-defined]
    lacking = opened.missing()
    assert lacking is None if message is None else message in str(lacking)


def test_what_cannot_be_prepared_is_told() -> None:
    here = host_facts.describe()
    board = {**here, "temperatures_c": {"zone": 50.0}, "governors": ["performance"]}
    board |= {"cpus": [0, 1, 2, 3], "platform": "linux"}
    board["fingerprint"] = {**here["fingerprint"], "governor": "schedutil"}
    wanted = Preparation(governor="performance", cool_to_c=60.0, affinity=(1, 2))
    assert str(wanted) == "pinned to CPU 1, 2, governor performance, cooled to 60 degree C"
    assert wanted.unmet(board, "pi") == []
    # Sessions differ from the device as it is: so do their fingerprints
    assert wanted.fingerprint(board)["governor"] == "performance"
    assert wanted.fingerprint(board)["cpus"] == "1,2"
    locked = {**board, "governors": [], "temperatures_c": {}}
    assert wanted.fingerprint(locked)["governor"] == "schedutil"
    assert wanted.unmet(locked, "pi") == [
        "governor performance cannot be set on pi: it is schedutil, and to change it takes root; "
        "there, run `sudo cpupower frequency-set -g performance`",
        "cool_to_c 60: pi tells no temperature",
    ]
    (line,) = wanted.unmet({**board, "cpus": [0, 1]}, "pi")
    assert line == "affinity [1, 2] is not within the CPUs [0, 1] of pi"


@pytest.mark.parametrize(
    ("backend", "keys"),
    [
        ("onnxruntime", {"threads": 1}),
        ("onnxruntime", {"threads": 2}),
        ("onnxruntime", {"threads": 2, "spinning": False}),
        (
            "onnxruntime",
            {"provider": "CUDAExecutionProvider", "options": {"arena": True, "depth": 3}},
        ),
        ("torch", {"options": {"device": "cuda", "precision": "fp16", "cuda_graph": False}}),
        ("torch", {"options": {"mode": "compile"}}),
        ("tensorrt", {"options": {"precision": "fp16", "fp32_parts": ["head", "attention.*"]}}),
        ("tensorrt_rtx", {"options": {"tf32": True, "cuda_graph": False}}),
        ("coreml", {"options": {"compute_units": "cpu-and-ne", "target": "iphone"}}),
    ],
)
def test_a_fingerprint_tells_the_options(backend: str, keys: dict[str, Any]) -> None:
    profile = DeviceProfile(name="x", backend=backend, **keys)
    opened = open_backend(profile)
    here = opened.place.describe()
    there = {**here, "packages": dict.fromkeys(host_facts.PACKAGES, "9.0"), "cpus": [0, 1]}
    opened.place._description = there  # type: ignore[attr-defined] # as if all were installed
    fingerprint = opened.fingerprint()
    contract.check_keys_of(profile, fingerprint)
    identity = TableIdentity(
        device="x",
        backend=backend,
        precision=opened.precision,
        threads=profile.threads,
        mode="quick",
        protocol=1,
        fingerprint=fingerprint,
        network={},
    )
    assert profile_of(identity).name == "x"
    with pytest.raises(UserError, match=f"table of x does not tell how {backend} ran: .* lacks '"):
        profile_of(replace(identity, fingerprint={"soc": "?"}))
    with pytest.raises(UserError, match="table of x is of backend 'abacus', which is not one of"):
        profile_of(replace(identity, backend="abacus"))


def test_open_too_many_threads() -> None:
    with pytest.raises(UserError, match=r"threads 9999 is not in 1"):
        open_backend(DeviceProfile(name="big", threads=9999)).fingerprint()


@pytest.mark.slow
def test_doctor_runs_the_device() -> None:
    checks = {check.name: check for check in doctor(get_device("cpu-1t"))}
    names = "runtime throttling session repeatability governor load disk"
    assert list(checks) == names.split()
    assert checks["runtime"].ok
    assert checks["session"].ok
    assert "anchor takes" in checks["session"].message
    assert "differ by" in checks["repeatability"].message


def test_doctor_says_what_is_missing() -> None:
    profile = DeviceProfile(name="gpu", provider="CUDAExecutionProvider")
    checks = {check.name: check for check in doctor(profile)}
    assert not checks["runtime"].ok
    assert "CUDAExecutionProvider is not in onnxruntime 1." in checks["runtime"].message
    assert "pip install onnxruntime-gpu" in checks["runtime"].message
    assert "session" not in checks
    checks = {check.name: check for check in doctor(DeviceProfile(name="big", threads=9999))}
    assert "threads 9999" in checks["runtime"].message
    (check,) = doctor(get_device("jetson-orin"))
    assert check.name == "profile"
    assert "its host is not set; write `host: NAME`" in check.message


def test_builtin_devices_are_reachable_or_say_why_not() -> None:
    obstacles = {name: obstacle(profile) for name, profile in builtin_devices().items()}
    assert obstacles["cpu"] is obstacles["cpu-1t"] is None
    for name, lacking in obstacles.items():
        assert lacking is None or len(lacking) < 200, name
    if nvidia.missing():
        assert obstacles["cuda"] == f"this host: {nvidia.missing()}"
        assert obstacles["tensorrt"] is not None
    for board in BOARDS:
        assert "its host is not set" in str(obstacles[board])
    assert "in Xcode" in str(obstacles["iphone"])


def test_options_of_a_backend() -> None:
    profile = DeviceProfile(name="t", backend="torch", options={"mode": "compile"})
    assert open_backend(profile).fingerprint()["mode"] == "compile"
    rtx = DeviceProfile(name="r", backend="tensorrt_rtx", options={"fp32_parts": ["head"]})
    assert open_backend(rtx).build_facts()["fp32_parts"] == "head"
    wrong = DeviceProfile(name="t", backend="torch", options={"modus": "compile"})
    with pytest.raises(UserError, match=r"device t: option 'modus' .* cuda_graph, device, mode"):
        open_backend(wrong)
    assert obstacle(wrong) is not None
    cuda = DeviceProfile(
        name="c", provider="CUDAExecutionProvider", options={"use_tf32": True, "device_id": 1}
    )
    told = open_backend(cuda).fingerprint()["provider_options"]
    assert told == '{"device_id": "1", "use_tf32": "1"}'


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"backend": "tensorrt", "options": {"precision": [1]}}, "precision [1] of tensorrt: use"),
        ({"backend": "tensorrt", "options": {"fp32_parts": 5}}, "fp32_parts 5 of tensorrt: give"),
        ({"backend": "coreml", "options": {"precision": {}}}, "precision {} of coreml: use fp"),
        ({"backend": "torch", "options": {"mode": [1]}}, "mode [1] of the torch backend: use e"),
        (
            {"provider": "CUDAExecutionProvider", "options": {"device_id": [0]}},
            "device_id [0] of CUDAExecutionProvider: onnxruntime takes a text, a number",
        ),
    ],
)
def test_options_of_another_type(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        open_backend(DeviceProfile(name="t", **keys))
    assert str(caught.value).startswith(f"device t: option {line}")


def test_options_that_onnxruntime_ignores() -> None:
    cpu = DeviceProfile(name="c", options={"arena": True})
    line = "device c: option 'arena' of CPUExecutionProvider: it takes none, and ignores others; "
    with pytest.raises(UserError, match=f"^{line}remove it$"):
        open_backend(cpu)
    assert obstacle(cpu) == f"{line}remove it"
    (check,) = doctor(cpu)
    assert (check.name, check.ok, check.message) == ("profile", False, f"{line}remove it")
    # A table of an earlier version, which let them through, still tells how it was measured
    old = dict(open_backend(replace(cpu, options={})).fingerprint())
    keys = OnnxRuntimeBackend.keys_of({**old, "provider_options": '{"arena": "1"}'})
    assert keys["options"] == {}
    with pytest.raises(ValueError, match="mapping"):
        OnnxRuntimeBackend.keys_of({**old, "provider_options": "[1]"})


def test_boards_take_their_host_from_a_profile(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"device raspberry-pi-5: its host is not set; write"):
        open_backend(get_device("raspberry-pi-5"))
    assert get_device("raspberry-pi-5").lease == "host"
    (tmp_path / "devices" / "raspberry-pi-5.yaml").write_text("host: pi5.local\n")
    profile = get_device("raspberry-pi-5")
    assert (profile.transport, profile.host, profile.threads) == ("ssh", "pi5.local", 4)
    assert profile.lease == "pi5.local"
    (tmp_path / "devices" / "second.yaml").write_text("name: raspberry-pi-5\n")
    with pytest.raises(UserError, match=r"taken by devices/raspberry-pi-5.yaml"):
        get_device("raspberry-pi-5")
    # Nor is it the board without a host when its file is of no use
    (tmp_path / "devices" / "second.yaml").unlink()
    (tmp_path / "devices" / "raspberry-pi-5.yaml").write_text("hots: pi5.local\n")
    with pytest.raises(UserError, match=r"'hots' is not one of .*; did you mean host\?"):
        get_device("raspberry-pi-5")


def test_doctor_and_clean_behind_ssh(device: Device) -> None:
    profile = DeviceProfile(
        name="board",
        transport="ssh",
        host="127.0.0.1",
        port=device.server.port,
        identity=device.server.identity,
        known_hosts=device.server.known_hosts(device.server.port),
        python=str(device.python),
        folder=str(device.folder),
    )
    assert profile.lease == "127.0.0.1"
    checks = {check.name: check for check in doctor(profile)}
    names = "connection runtime throttling session repeatability governor load disk"
    assert list(checks) == names.split()
    assert "Python 3" in checks["connection"].message
    assert checks["runtime"].message.startswith("onnxruntime ")
    assert checks["session"].ok
    assert (device.folder / "files").exists()
    clean_device(profile)
    assert not device.folder.exists()
    empty = device.folder.with_name("none")
    checks = {check.name: check for check in doctor(replace(profile, known_hosts=str(empty)))}
    assert list(checks) == ["connection"]
    assert f"is not in {empty}; log in once" in checks["connection"].message


def test_another_interpreter_of_this_host(interpreter: Path, tmp_path: Path) -> None:
    profile = DeviceProfile(name="own", python=str(interpreter), folder=str(tmp_path / "agent"))
    with closing(open_backend(profile)) as backend:
        assert backend.fingerprint()["threads"] == "1"
    absent = replace(profile, python=str(tmp_path / "none"))
    with pytest.raises(UserError, match="this host has no such Python"):
        open_backend(absent).fingerprint()
    talker = tmp_path / "talker"  # reads nothing, and goes once all is sent
    talker.write_text("#!/bin/sh\nsleep 0.2\nprintf 'no%0999d such %0999d' 7 7 >&2\nexit 3\n")
    talker.chmod(0o755)
    with pytest.raises(UserError, match=r"exit code 3: .*; check .* host and python") as caught:
        open_backend(replace(profile, python=str(talker))).fingerprint()
    assert len(str(caught.value)) < 350
    with pytest.raises(UserError, match="device cpu is measured without an agent"):
        clean_device(get_device("cpu"))


def test_lease_waits_and_says_so() -> None:
    told: list[str] = []
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with device_lease("bench"):
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    refused = pytest.raises(UserError, match="has been measuring on bench")
    with refused, device_lease("bench", timeout_s=0.05, poll_s=0.01, notify=told.append):
        pass
    assert told == [f"waiting for process {os.getpid()}, which is measuring on bench"]
    release.set()
    holder.join()
    with device_lease("bench", timeout_s=1.0):
        pass


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        (
            "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
            "model name\t: AMD EPYC\nstepping\t: 1\n" * 2,
            "25-17-1",
        ),
        ("CPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n", "0x41-0x0-0xd08"),
        ("", "unknown"),  # not Linux
    ],
)
def test_processors_of_one_name_are_told_apart(cpuinfo, kind, monkeypatch):
    monkeypatch.setattr(host_facts, "cpuinfo", lambda: cpuinfo)
    assert host_facts.describe()["fingerprint"]["cpu_kind"] == kind
