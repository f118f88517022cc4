"""A device behind SSH, on this host: a real sshd, an agent's interpreter, and a link that fails.

The interpreter is a virtual environment with numpy and onnxruntime and nothing else. Where there
is no sshd, asyncssh serves in its place.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncssh

from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.remote_host import RemoteHost
from latency.ssh import SshTransport

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
LogLevel ERROR
"""

_BABBLER = """\
#!{python}
import os, subprocess, sys
from pathlib import Path
plan = Path({plan!r})
child = subprocess.Popen([{python!r}, *sys.argv[1:]], stdout=subprocess.PIPE)
passed = 0
while data := os.read(child.stdout.fileno(), 1 << 16):
    limit = int(plan.read_text()) if plan.exists() else None
    if limit is not None and passed + len(data) > limit:
        plan.unlink()
        place = max(0, limit - passed)
        data = data[:place] + b"Segmentation fault\\n" + data[place:]
    passed += len(data)
    while data:
        data = data[os.write(1, data):]
sys.exit(child.wait())
"""


def make_interpreter(folder: Path) -> Path:
    """A virtual environment with what a device has: numpy and onnxruntime."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for package in ("numpy", "onnxruntime"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in Path(spec.origin).parents[1].glob(f"{package}*"):
            (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


@dataclass(kw_only=True)
class Server:
    """An SSH server on a loopback port, and the files of its only user."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def identity(self) -> str:
        return str(self.folder / "user_key")

    def known_hosts(self, port: int) -> str:
        """A file that knows this server under another port."""
        path = self.folder / f"known_hosts_{port}"
        key = (self.folder / "host_key.pub").read_text()
        path.write_text(f"[127.0.0.1]:{port} {key}")
        return str(path)

    def transport(self, python: Path, port: int | None = None, **options: Any) -> SshTransport:
        port = port or self.port
        given = {"identity": self.identity, "known_hosts": self.known_hosts(port)} | options
        return SshTransport("127.0.0.1", port=port, python=str(python), **given)


@contextmanager
def serve_ssh(folder: Path, *, real: bool = SSHD is not None) -> Iterator[Server]:
    """A server with fresh keys; `real` is sshd, else asyncssh."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host_key", "user_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        (folder / name).chmod(0o600)
        key.write_public_key(folder / f"{name}.pub")
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if real:
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        config = folder / "sshd_config"
        config.write_text(_CONFIG.format(folder=folder, port=port))
        command = [SSHD, "-D", "-e", "-f", str(config)]
    else:
        script = str(Path(__file__).with_name("ssh_server.py"))
        command = [sys.executable, script, str(folder), str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield Server(folder=folder, port=port, process=process)
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass(kw_only=True)
class Device:
    """A server, a proxy before it, and an agent's folder behind it."""

    server: Server
    proxy: "FaultProxy"
    python: Path
    folder: Path
    """The agent's."""

    def backend(self, **options: Any) -> OnnxRuntimeBackend:
        """onnxruntime there; options are those of the backend and of the place."""
        of_place = {
            name: options.pop(name) for name in ("silence_s", "link_retries") & options.keys()
        }
        return OnnxRuntimeBackend(place=self.place(**of_place), **({"threads": 1} | options))

    def place(self, **options: Any) -> RemoteHost:
        transport = self.server.transport(self.babbler(), self.proxy.port)
        given = {"silence_s": 4.0, "pause_s": 0.05} | options
        return RemoteHost(transport, folder=str(self.folder), **given)

    def babbler(self) -> Path:
        """An interpreter that puts garbage into its output where `babble` says."""
        path = self.folder.with_name("babbling-python")
        plan = str(self.folder.with_name("babble"))
        path.write_text(_BABBLER.format(python=str(self.python), plan=plan))
        path.chmod(0o755)
        return path

    def babble(self, after_bytes: int) -> None:
        self.folder.with_name("babble").write_text(str(after_bytes))

    @property
    def babbled(self) -> bool:
        return not self.folder.with_name("babble").exists()

    def processes(self, kind: str) -> list[int]:
        """Process ids of the agent here, by kind: serve, work or session."""
        found = []
        for path in Path("/proc").iterdir():
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0") if path.name.isdigit() else []
                if str(self.folder).encode() in b" ".join(words[:2]) and kind.encode() in words:
                    found.append(int(path.name))
        return found

    def kill(self, kind: str) -> bool:
        """SIGKILL the agent's processes of a kind; whether there were any."""
        pids = self.processes(kind)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)


class FaultProxy:
    """Passes TCP connections on to a port; one planned fault at a time.

    Faults: `cut` (both ends see a reset), `stall` (nothing passes any more), `corrupt` (a bit
    flips), `garbage` (bytes are put in), `delay` (0.3 s).
    """

    KINDS = ("cut", "stall", "corrupt", "garbage", "delay")

    def __init__(self, target: int) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.kind: str | None = None
        self.left = 0
        self.fired = 0
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def plan(self, kind: str, after_bytes: int) -> None:
        """Do this once `after_bytes` more have passed, in either direction."""
        with self.lock:
            self.kind, self.left = kind, after_bytes

    def cut_now(self) -> None:
        """Reset all connections."""
        for one in list(self.sockets):
            self._reset(one)

    def close(self) -> None:
        # shutdown wakes `accept`, which close alone does not
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut_now()
        for thread in self.threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                self.threads.append(threading.Thread(target=self._pump, args=(source, sink)))
                self.threads[-1].daemon = True
                self.threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 14):
                match self._due(len(data)):
                    case "cut":
                        self._reset(source)
                        self._reset(sink)
                    case "stall":
                        while source.recv(1 << 14):
                            pass
                    case "corrupt":
                        place = random.randrange(len(data))
                        flipped = bytes([data[place] ^ 1 << random.randrange(8)])
                        data = data[:place] + flipped + data[place + 1 :]
                    case "garbage":
                        data = (
                            data[: len(data) // 2] + random.randbytes(32) + data[len(data) // 2 :]
                        )
                    case "delay":
                        time.sleep(0.3)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._reset(source)
            self._reset(sink)

    def _due(self, count: int) -> str | None:
        with self.lock:
            if self.kind is None:
                return None
            self.left -= count
            if self.left > 0:
                return None
            kind, self.kind = self.kind, None
            self.fired += 1
            return kind

    def _reset(self, one: socket.socket) -> None:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
        with suppress(ValueError):
            self.sockets.remove(one)


@contextmanager
def remote_device(folder: Path, python: Path, server: Server) -> Iterator[Device]:
    """A device with a fresh agent's folder; nothing of the agent is left running."""
    folder.mkdir(parents=True, exist_ok=True)
    proxy = FaultProxy(server.port)
    device = Device(server=server, proxy=proxy, python=python, folder=folder / "agent")
    try:
        yield device
    finally:
        proxy.close()
        for kind in ("serve", "work", "session"):
            device.kill(kind)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value
