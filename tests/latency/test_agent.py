import ast
import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from latency import agent, agent_cache, bundle, host_facts
from latency.artifact import Artifact
from latency.link import Link
from latency.outcome import samples_of
from latency.remote_host import _Files
from latency.session_record import timed_session
from latency.timing import TimingConfig
from latency.transport import LinkError, LocalTransport
from search_spaces.errors import UserError
from tests.latency.remote_device import wait_for

Models = dict[str, Artifact]
OPTIONS = {
    "runtime": "onnxruntime",
    "threads": 1,
    "provider": "CPUExecutionProvider",
    "options": {},
    "spinning": False,
    "affinity": None,
}
RUNTIMES = {
    "onnxruntime_session": ["onnxruntime"],
    "torch_session": ["torch"],
    "cuda_clock": ["torch"],
    "tensorrt_session": ["torch"],
    "coreml_session": ["coremltools"],
}
"""What modules of the agent may import beside numpy."""
NAME = "0" * 31 + "1"


@contextmanager
def linked(python: Path, folder: Path) -> Iterator[Link]:
    """An agent in its own interpreter, over pipes."""
    transport = LocalTransport(str(python))
    with closing(Link.connect(transport, folder=str(folder), silence_s=10.0)) as link:
        yield link


def request(models: list[Artifact], timing: TimingConfig, files: _Files) -> dict[str, Any]:
    return {"models": [files.add(model) for model in models], **OPTIONS, **timing.request()}


def start(link: Link, models: list[Artifact], timing: TimingConfig, name: str = NAME) -> int:
    """Send the files and ask for a session; does not wait for it."""
    files = _Files()
    wanted = request(models, timing, files)
    for sha256 in link.call("missing", files=list(files.contents))["missing"]:
        link.put(sha256, files.contents[sha256]())
    return link._request("session", session=name, request=wanted, timeout_s=30.0)


def running(folder: Path, kind: str = "") -> list[int]:
    """Process ids of the agent in that folder; `serve`, `work` or `session` only."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and kind.encode() in [*words.split(b"\0"), b""]:
            found.append(int(path.name))
    return found


def test_one_small_file_for_old_pythons() -> None:
    assert len(bundle.agent_bytes()) < 43_000
    bundle.agent_bytes.cache_clear()
    assert bundle.agent_bytes() == bundle.agent_bytes()
    ours = {f"latency.{module}" for module in bundle.MODULES} | {"latency"}
    for module in bundle.MODULES:
        source = Path(bundle.__file__).with_name(f"{module}.py").read_text()
        for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
                if node.module == "latency":
                    names = [f"latency.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                allowed = {*sys.stdlib_module_names, "numpy", *RUNTIMES.get(module, ())}
                assert name in ours or name.split(".")[0] in allowed, (module, name)
    ast.parse(bundle.BOOTSTRAP, feature_version=(3, 4))


def test_it_says_what_the_device_is(interpreter: Path, tmp_path: Path) -> None:
    with linked(interpreter, tmp_path / "agent") as link:
        device = link.call("describe")
    assert device["fingerprint"].pop("device") == host_facts.device_id()
    assert device["fingerprint"] == host_facts.describe()["fingerprint"]
    assert device["cpus"] == host_facts.available_cpus()
    assert device["packages"]["onnxruntime"] == host_facts.package_version("onnxruntime")
    assert device["packages"]["torch"] is None


def test_a_cut_link_loses_no_finished_session(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    folder, wanted = tmp_path / "agent", [models["anchor"], models["small"]]
    with linked(interpreter, folder) as link:
        start(link, wanted, tiny)
        wait_for(lambda: (folder / "sessions" / NAME / "lock").exists())
    wait_for(lambda: (folder / "sessions" / NAME / "result.json").exists())
    wait_for(lambda: not running(folder))
    assert not list(folder.glob("*.pyz"))
    kept = (folder / "sessions" / NAME / "result.json").stat().st_mtime_ns
    with linked(interpreter, folder) as link:
        files = _Files()
        request(wanted, tiny, files)
        assert link.call("missing", files=list(files.contents)) == {"id": 1, "missing": []}
        first = link._reply(start(link, wanted, tiny))
        again = link._reply(start(link, wanted, tiny))
        assert first["outcome"] == again["outcome"]
        assert (folder / "sessions" / NAME / "result.json").stat().st_mtime_ns == kept
        link.call("forget", session=NAME)
        assert not (folder / "sessions" / NAME).exists()
        fresh = link._reply(start(link, wanted, tiny))
    facts = [one["outcome"]["reply"]["facts"] for one in (first, fresh)]
    assert facts[0]["started_at"] < facts[1]["started_at"]


def test_a_result_can_be_forgotten_at_once(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    with linked(interpreter, tmp_path) as link:
        for _ in range(2):
            link._reply(start(link, [models["anchor"]], tiny))
            link.call("forget", session=NAME)
            assert not list((tmp_path / "sessions").iterdir())


def test_a_session_of_that_name_is_joined(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    wanted = [models["anchor"], models["small"]]
    with linked(interpreter, tmp_path) as one, linked(interpreter, tmp_path) as other:
        numbers = [start(link, wanted, tiny) for link in (one, other)]
        outcomes = [
            link._reply(number)["outcome"]
            for link, number in zip((one, other), numbers, strict=True)
        ]
    assert "reply" in outcomes[0]
    assert outcomes[0] == outcomes[1]


def test_sessions_of_two_hosts_wait_for_one_another(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    wanted = [models["anchor"], models["small"]]
    with linked(interpreter, tmp_path) as one, linked(interpreter, tmp_path) as other:
        numbers = [
            start(link, wanted, tiny, name=f"{index:032x}")
            for index, link in enumerate((one, other))
        ]
        facts = [
            link._reply(number)["outcome"]["reply"]["facts"]
            for link, number in zip((one, other), numbers, strict=True)
        ]
    first, second = sorted(facts, key=lambda fact: fact["started_at"])
    assert first["ended_at"] <= second["started_at"]


def test_a_killed_session_is_lost(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    folder = tmp_path / "agent"
    with linked(interpreter, folder) as link:
        number = start(link, [models["anchor"], models["endless"]], tiny)
        wait_for(lambda: len(running(folder)) == 3)
        time.sleep(0.5)
        (worker,) = running(folder, "work")  # with it goes the process that times
        os.kill(worker, 9)
        outcome = link._reply(number)["outcome"]
        assert outcome["lost"].startswith("the agent lost its session")
        wait_for(lambda: len(running(folder)) == 1)
        assert "reply" in link._reply(start(link, [models["anchor"]], tiny))["outcome"]
    wait_for(lambda: not running(folder))


def test_a_damaged_file_is_asked_for_again(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    wanted = [models["anchor"], models["small"]]
    with linked(interpreter, tmp_path) as link:
        link._reply(start(link, wanted, tiny))
        link.call("forget", session=NAME)
        damaged = tmp_path / "files" / wanted[1].sha256
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
        reply = link._reply(start(link, wanted, tiny))
        assert reply["missing"] == [wanted[1].sha256]
        assert "reply" in link._reply(start(link, wanted, tiny))["outcome"]


def test_a_file_that_changed_on_its_way_is_not_kept(interpreter: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"right").hexdigest()
    with linked(interpreter, tmp_path) as link, pytest.raises(LinkError):
        link.put(sha256, b"wrong")
    assert not list((tmp_path / "files").iterdir())


@pytest.fixture
def full_disk(interpreter: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An interpreter to which a folder is a disk of 8 MiB, and that folder."""
    folder, wrapped = tmp_path / "agent", tmp_path / "python"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=8m tmpfs {folder}"
    for options in ("-Urm", "-m"):  # in a user's own namespace, or as root
        try:
            done = subprocess.run(["unshare", options, "sh", "-c", mount], capture_output=True)
        except FileNotFoundError:
            break
        if done.returncode == 0:
            inner = f'{mount} && exec {interpreter} "$@"'
            wrapped.write_text(f"#!/bin/sh\nexec unshare {options} sh -c '{inner}' sh \"$@\"\n")
            wrapped.chmod(0o755)
            return wrapped, folder
    pytest.skip("no file system may be mounted here")


def test_it_goes_on_after_a_full_disk(
    full_disk: tuple[Path, Path], models: Models, tiny: TimingConfig
) -> None:
    python, folder = full_disk
    large = bytes(16 << 20)
    with linked(python, folder) as link:
        with pytest.raises(UserError, match="no space left on the device for 16777216 bytes"):
            link.put(hashlib.sha256(large).hexdigest(), large)
        assert "reply" in link._reply(start(link, [models["anchor"]], tiny))["outcome"]
        link.call("forget", session=NAME)
        (server,) = running(folder, "serve")
        filler = Path(f"/proc/{server}/root{folder}/filler")
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except PermissionError:
            pytest.skip("another process's file system is out of reach here")
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - how the disk gets full
        with pytest.raises(UserError, match="No space left on device"):
            link._reply(start(link, [models["anchor"]], tiny))
        filler.unlink()
        assert "reply" in link._reply(start(link, [models["anchor"]], tiny))["outcome"]
    assert not list(folder.iterdir())  # all of it was on that disk


@pytest.mark.parametrize("name", ["../../x", "0" * 63, "A" * 64, ""])
def test_names_are_hex(interpreter: Path, tmp_path: Path, name: str) -> None:
    with linked(interpreter, tmp_path) as link, pytest.raises(UserError, match="hex digits"):
        link.call("missing", files=[name])


def test_clean_leaves_nothing(
    interpreter: Path, tmp_path: Path, models: Models, tiny: TimingConfig
) -> None:
    folder = tmp_path / "agent"
    with linked(interpreter, folder) as link:
        link._reply(start(link, [models["anchor"]], tiny))
    assert {path.name for path in folder.iterdir()} == {"files", "sessions", "measuring.lock"}
    with linked(interpreter, folder) as link:
        link.call("clean")
    assert not folder.exists()
    assert not running(folder)


def test_it_ends_when_nobody_talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "IDLE_S", 0.1)
    incoming, other = os.pipe()
    ours, outgoing = os.pipe()
    try:
        with pytest.raises(agent.LinkEnded):
            agent.Agent(tmp_path, incoming, outgoing).serve()
    finally:
        for end in (incoming, other, ours, outgoing):
            os.close(end)


def test_the_cache_is_bounded_and_old_results_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_cache, "CACHE_BYTES", 250)
    one = agent.Agent(tmp_path, 0, 1)
    files = one.cache.folder
    for age_h, name in ((9, "a"), (5, "b"), (0, "c")):
        path = files / (name * 64)
        path.write_bytes(b"x" * 100)
        os.utime(path, (time.time() - age_h * 3600,) * 2)
    for name, age_s in (("1" * 32, agent.KEEP_S + 9), ("2" * 32, 9)):
        (one.sessions / name).mkdir()
        os.utime(one.sessions / name, (time.time() - age_s,) * 2)
    one.cache.make_room(100)
    assert [path.name[0] for path in files.iterdir()] == ["c"]
    agent.Agent(tmp_path, 0, 1)
    assert [path.name[0] for path in one.sessions.iterdir()] == ["2"]


def test_throttling_makes_a_session_hot(
    interpreter: Path,
    tmp_path: Path,
    models: Models,
    tiny: TimingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert host_facts.throttling() == []
    command = tmp_path / "vcgencmd"
    command.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with linked(interpreter, tmp_path / "agent") as link:
        assert link.call("describe")["throttled"] == ["under-voltage", "throttled"]
        outcome = link._reply(start(link, [models["anchor"]], tiny))["outcome"]
    assert outcome["reply"]["facts"]["throttled"] == ["throttled", "under-voltage"]
    samples = samples_of(outcome, "board")
    about = {"session_id": "", "seed": 0, "started_at": "", "timing": {}}
    record = timed_session(about, [models["anchor"]], samples, tiny)
    assert record.hot
    assert record.message == "the device held itself back: throttled, under-voltage"


def test_what_is_old_goes(interpreter: Path, tmp_path: Path, models: Models) -> None:
    folder = tmp_path / "agent"
    with linked(interpreter, folder) as link:
        link.put(models["small"].sha256, models["small"].path.read_bytes())
    torn, old = folder / "files" / f"{'0' * 64}.7.part", folder / "sessions" / "old"
    torn.write_bytes(b"torn")
    old.mkdir(parents=True)
    for path in (torn, old):
        os.utime(path, (0, 0))
    with linked(interpreter, folder) as link:
        assert link.call("missing", files=[models["small"].sha256])["missing"] == []
        wait_for(lambda: not torn.exists() and not old.exists())
