"""A Ray cluster: started on this host for the while, or joined where it runs."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError

LOOPBACK = "127.0.0.1"
CONNECT_S = 10.0
"""Longest that a cluster's port may take to answer."""
STORE_BYTES = 100 << 20
"""Object store of a cluster of our own, beside what is put there; Ray takes no less than 75 MiB."""
_SHORT = 24
"""Ray's sockets lie below its folder: paths of 107 characters at most, 83 more than this."""
_SETTINGS = {
    # Read when ray is imported. Ray listens on all interfaces, unless the name of its node is the
    # loopback address, which Ray gives it only where it expects no other machine.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's workers give way to all other processes, but here they are what the user waits for.
    "RAY_worker_niceness": "0",
    # Another user of this host could run programs as this one.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def require_ray(address: str) -> None:
    """Check that Ray is there, without importing it.

    Raises:
        UserError: It is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            f"cluster.address is {address}, but Ray is not installed; pip install "
            "'elastic-nas[ray]', or leave cluster out"
        )


class RayCluster:
    """A connection to a cluster. `close` gives it up, and stops what was started here."""

    def __init__(self, address: str, *, cpus: int, store_bytes: int) -> None:
        """Start or join a cluster.

        Args:
            address: `local`, `auto`, or HOST:PORT.
            cpus: CPUs that a cluster of our own has.
            store_bytes: What will be put into its object store.

        Raises:
            UserError: Ray is not installed, or there is no cluster at the address.
        """
        require_ray(address)
        self._folder: Path | None = None
        self.address = address
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        options: dict[str, Any] = {}
        if address == "local":
            self._folder = _folder()
            options = {
                "num_cpus": cpus,
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES + 2 * store_bytes,
                "_node_ip_address": LOOPBACK,
                # One below, since Ray lets everybody write to the folder that it is given.
                "_temp_dir": str(self._folder / "r"),
            }
            _set_apart()
        elif address != "auto":
            _answers(address)
        try:
            import ray

            # Its warnings are about machines, and none of a user's business here.
            logging.getLogger("ray").setLevel(logging.ERROR)
            with _kept_signals():
                ray.init(
                    address,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **options,
                )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            self.close()
            reason = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(f"cluster.address {address}: {reason}; {_next_step(address)}") from None
        except BaseException:
            self.close()
            raise
        _silence()
        if address == "local" and any(node["NodeName"] != LOOPBACK for node in self.nodes()):
            self.close()
            raise RuntimeError("Ray was imported before it could be told to stay on this host")

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def room(self, cpus: int) -> int:
        """How many workers of so many CPUs would fit, were nothing else there."""
        return sum(int(node["Resources"].get("CPU", 0) // cpus) for node in self.nodes())

    def describe(self) -> str:
        """What the cluster has, for messages: `2 nodes with CPU 2 and 4 (3 free)`."""
        import ray

        nodes = self.nodes()
        counts = sorted((node["Resources"].get("CPU", 0) for node in nodes), reverse=True)
        cpus = " and ".join(f"{count:g}" for count in counts)
        free = ray.available_resources().get("CPU", 0)
        return f"{len(nodes)} node{'s' * (len(nodes) != 1)} with CPU {cpus} ({free:g} free)"

    def close(self) -> None:
        """Leave the cluster, and stop it if it is our own; a second call does nothing."""
        import ray

        with _kept_signals():
            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _silence() -> None:
    """Keep Ray's account of every lost worker off stdout, where it goes whatever it is told."""
    module = importlib.import_module("ray._private.worker")
    setattr(module, "print_to_stdstream", lambda *_, **__: None)  # noqa: B010 - not ours to type


def _set_apart() -> None:
    """Keep a cluster of our own to this host and this user; what the user has set stays."""
    mode = os.environ.get("RAY_AUTH_MODE")
    for name, value in _SETTINGS.items():
        if mode is None or not name.startswith("RAY_AUTH"):
            os.environ[name] = value


def _folder() -> Path:
    """A folder that nobody else can read, with a short name."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="nas-ray-", dir=usual if len(usual) <= _SHORT else "/tmp"))


def _answers(address: str) -> None:
    """Check that something listens there: Ray tries for minutes.

    Raises:
        UserError: Nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S):
            return
    except OSError as error:
        raise UserError(
            f"cluster.address {address}: {(error.strerror or str(error)).lower()}; "
            f"{_next_step(address)}"
        ) from None


def _next_step(address: str) -> str:
    if address == "local":
        return "leave cluster out to search without Ray"
    if address == "auto":
        return (
            "start Ray on this host with `ray start`, give RAY_AUTH_TOKEN if it has one, or write "
            "cluster.address=local"
        )
    return (
        "give the HOST:PORT that `ray start --head` named there, and RAY_AUTH_TOKEN if it has one; "
        "this host must be a node of it"
    )


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Give SIGTERM back to who had it: Ray takes it, and ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # what Ray's handler makes of it
        raise KeyboardInterrupt from None
    finally:
        with suppress(TypeError):  # a handler that was not set from Python
            signal.signal(signal.SIGTERM, previous)
