"""Devices by name: built-in profiles of this host and the user's own YAML files."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from latency import host_facts
from latency.backend import DeviceBackend
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.remote_profile import check_transport, open_remote
from search_spaces.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What to measure on and how: a name for a backend with its options."""

    name: str
    backend: str = "onnxruntime"
    threads: int = 1
    """Intra-op threads."""
    provider: str = "CPUExecutionProvider"
    """onnxruntime execution provider."""
    spinning: bool = False
    """Whether idle threads spin; see `OnnxRuntimeBackend`."""
    transport: str = "local"
    """`local`, or `ssh` for a device behind SSH."""
    host: str | None = None
    """Name or address of a device behind SSH."""
    port: int = 22
    """TCP port of its sshd."""
    user: str | None = None
    """Who to log in as; by default what ssh itself would take."""
    identity: str | None = None
    """File of the private key; by default what ssh itself would take."""
    known_hosts: str | None = None
    """File of known host keys, by default `~/.ssh/known_hosts`."""
    python: str | None = None
    """Interpreter that has onnxruntime: on a device behind SSH (by default `python3`), or
    another one of this host."""
    folder: str = "~/.cache/elastic-nas"
    """Where the agent and its cache lie, for a device behind SSH or an interpreter of its own."""

    def __post_init__(self) -> None:
        """Check types and values.

        Raises:
            UserError: One of them is wrong.
        """
        for name in ("name", "backend", "provider"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UserError(f"{name} {value!r} of a device profile is not a text; set it")
        if not all(c.isalnum() or c in "-_" for c in self.name):
            raise UserError(f"device name {self.name!r}: use letters, digits, - and _ only")
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1:
            raise UserError(f"threads {self.threads!r} of device {self.name} is not 1 or more")
        if not isinstance(self.spinning, bool):
            raise UserError(f"spinning {self.spinning!r} of device {self.name}: true or false")
        check_transport(self)
        if self.backend not in BACKENDS:
            raise UserError(
                f"backend {self.backend!r} of device {self.name} is not one of "
                f"{', '.join(sorted(BACKENDS))}"
            )

    @property
    def lease(self) -> str:
        """The physical device, on which one measurement runs at a time."""
        return self.host if self.transport == "ssh" and self.host else "host"

    @property
    def by_agent(self) -> bool:
        """Whether sessions run elsewhere: behind SSH, or in another interpreter of this host."""
        return self.transport == "ssh" or self.python is not None


def _onnxruntime(profile: DeviceProfile) -> DeviceBackend:
    if profile.by_agent:
        return open_remote(profile)
    return OnnxRuntimeBackend(
        threads=profile.threads, provider=profile.provider, spinning=profile.spinning
    )


BACKENDS: Mapping[str, Callable[[DeviceProfile], DeviceBackend]] = {"onnxruntime": _onnxruntime}
BOARDS = ("raspberry-pi-4", "raspberry-pi-5")
"""Built-in devices behind SSH that a profile of the same name completes with its host."""


def open_backend(profile: DeviceProfile) -> DeviceBackend:
    """The backend of a profile; starts nothing.

    Raises:
        UserError: The profile does not fit this machine.
    """
    try:
        return BACKENDS[profile.backend](profile)
    except UserError as error:
        raise UserError(f"device {profile.name}: {error}") from None


def builtin_devices() -> dict[str, DeviceProfile]:
    """`cpu` with all CPUs that this process may use, `cpu-1t` with one thread; the boards.

    A board has no host yet; a profile of the same name gives it.
    """
    threads = len(host_facts.available_cpus())
    boards = [DeviceProfile(name=name, transport="ssh", threads=4) for name in BOARDS]
    cpu = DeviceProfile(name="cpu", threads=threads)
    profiles = (cpu, DeviceProfile(name="cpu-1t"), *boards)
    return {profile.name: profile for profile in profiles}


def device_folders() -> list[Path]:
    """Where the user's profiles lie: `./devices` and the user's config folder."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return [Path("devices"), Path(config) / "elastic-nas" / "devices"]


def list_devices() -> dict[str, DeviceProfile]:
    """All profiles by name.

    Raises:
        UserError: A file is malformed or two profiles share a name.
    """
    profiles = builtin_devices()
    origins = {name: "the built-in one" for name in profiles if name not in BOARDS}
    for folder in device_folders():
        for path in sorted(folder.glob("*.yaml")):
            profile = _read(path)
            if profile.name in origins:
                raise UserError(
                    f"{path}: the device name {profile.name} is taken by "
                    f"{origins[profile.name]}; rename one"
                )
            profiles[profile.name] = profile
            origins[profile.name] = str(path)
    return profiles


def get_device(name: str) -> DeviceProfile:
    """The profile called `name`.

    Raises:
        UserError: There is none; the message lists those that there are.
    """
    profiles = list_devices()
    if name not in profiles:
        raise UserError(
            f"device {name!r} is not one of {', '.join(sorted(profiles))}; "
            f"add devices/{name}.yaml for one of your own"
        )
    return profiles[name]


def _read(path: Path) -> DeviceProfile:
    """A profile; its name is the file's unless it gives one."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not readable: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no `key: value` lines; see `nas devices --help`")
    known = [field.name for field in fields(DeviceProfile)]
    for key in content:
        if key not in known:
            raise UserError(f"{path}: {key!r} is not one of {', '.join(known)}; remove it")
    try:
        name = content.get("name", path.stem)
        board = vars(builtin_devices()[name]) if name in BOARDS else {}
        return DeviceProfile(**{"name": path.stem, **board, **content})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
