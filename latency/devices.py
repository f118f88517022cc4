"""Devices by name: built-in profiles and the user's own YAML files."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from latency import host_facts
from latency.backend import DeviceBackend
from latency.coreml_backend import CoreMLBackend
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.place import Place
from latency.remote_profile import check_transport, open_place
from latency.tensorrt_backend import TensorRTBackend
from latency.torch_backend import TorchBackend
from search_spaces.errors import UserError


def is_device_name(text: str) -> bool:
    """Whether a device may be called that: files are named by it."""
    return bool(text) and all(c.isalnum() or c in "-_" for c in text)


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
    affinity: Sequence[int] | None = field(default=None, hash=False)
    """CPUs that onnxruntime's sessions are pinned to; by default the scheduler chooses."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Of onnxruntime's provider, by its own names; of another backend, see its class."""
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
    """Interpreter that has the runtime: on a device behind SSH (by default `python3`), or
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
        if not is_device_name(self.name):
            raise UserError(f"device name {self.name!r}: use letters, digits, - and _ only")
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1:
            raise UserError(f"threads {self.threads!r} of device {self.name} is not 1 or more")
        if not isinstance(self.spinning, bool):
            raise UserError(f"spinning {self.spinning!r} of device {self.name}: true or false")
        check_transport(self)
        cpus = self.affinity
        if cpus is not None and not (cpus and all(type(c) is int and c >= 0 for c in cpus)):
            raise UserError(
                f"affinity {cpus!r} of device {self.name} is not a list of CPUs; write [2, 3], say"
            )
        if self.backend not in BACKENDS:
            raise UserError(
                f"backend {self.backend!r} of device {self.name} is not one of "
                f"{', '.join(sorted(BACKENDS))}"
            )
        if not isinstance(self.options, dict) or not all(isinstance(k, str) for k in self.options):
            raise UserError(
                f"options {self.options!r} of device {self.name} is not a mapping; "
                "write `options:` with `name: value` lines below it"
            )

    @property
    def lease(self) -> str:
        """The physical device, on which one measurement runs at a time."""
        return self.host if self.transport == "ssh" and self.host else "host"

    @property
    def by_agent(self) -> bool:
        """Whether sessions run elsewhere: behind SSH, or in another interpreter of this host."""
        return self.transport == "ssh" or self.python is not None


def _onnxruntime(profile: DeviceProfile, place: Place) -> DeviceBackend:
    return OnnxRuntimeBackend(
        threads=profile.threads,
        provider=profile.provider,
        options=profile.options,
        spinning=profile.spinning,
        affinity=profile.affinity,
        place=place,
    )


def _torch(profile: DeviceProfile, place: Place) -> DeviceBackend:
    options = _options(profile, TorchBackend)
    return TorchBackend(threads=profile.threads, place=place, **options)


def _tensorrt(profile: DeviceProfile, place: Place) -> DeviceBackend:
    options = _options(profile, TensorRTBackend)
    return TensorRTBackend(library=profile.backend, place=place, **options)


def _coreml(profile: DeviceProfile, place: Place) -> DeviceBackend:
    return CoreMLBackend(place=place, **_options(profile, CoreMLBackend))


def _options(profile: DeviceProfile, backend: type) -> dict[str, Any]:
    known = sorted(set(inspect.signature(backend).parameters) - {"threads", "library", "place"})
    for name in profile.options:
        if name not in known:
            raise UserError(
                f"option {name!r} of backend {profile.backend} is not one of {', '.join(known)}; "
                "remove it"
            )
    return dict(profile.options)


BACKENDS: Mapping[str, Callable[[DeviceProfile, Place], DeviceBackend]] = {
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "tensorrt": _tensorrt,
    "tensorrt_rtx": _tensorrt,
    "coreml": _coreml,
}
BOARDS = ("raspberry-pi-4", "raspberry-pi-5", "jetson-orin", "mac")
"""Built-in devices that a profile of the same name completes, with its host above all."""


def open_backend(profile: DeviceProfile) -> DeviceBackend:
    """The backend of a profile; starts nothing and connects to nothing.

    Raises:
        UserError: The profile cannot be right on any machine, or lacks its host.
    """
    try:
        return BACKENDS[profile.backend](profile, open_place(profile))
    except UserError as error:
        raise UserError(f"device {profile.name}: {error}") from None


def obstacle(profile: DeviceProfile) -> str | None:
    """Why a device cannot be measured from here, and how to change that; None if it can.

    A device behind SSH is connected to.
    """
    try:
        with closing(open_backend(profile)) as backend:
            return backend.missing()
    except UserError as error:
        return str(error)


def builtin_devices() -> dict[str, DeviceProfile]:
    """This host's CPU (`cpu` with all CPUs that may be used, `cpu-1t` with one thread) and more.

    Boards have no host yet: a profile of the same name gives it. A Mac is behind SSH, unless this
    is one.
    """
    threads = len(host_facts.available_cpus())
    half = {"precision": "fp16"}
    mac = "local" if sys.platform == "darwin" else "ssh"
    profiles = (
        DeviceProfile(name="cpu", threads=threads),
        DeviceProfile(name="cpu-1t"),
        DeviceProfile(name="cuda", backend="torch", options={"device": "cuda"}),
        DeviceProfile(name="tensorrt", backend="tensorrt", options=half),
        DeviceProfile(name="raspberry-pi-4", transport="ssh", threads=4),
        DeviceProfile(name="raspberry-pi-5", transport="ssh", threads=4),
        DeviceProfile(name="jetson-orin", backend="tensorrt", options=half, transport="ssh"),
        DeviceProfile(name="mac", backend="coreml", transport=mac),
        DeviceProfile(name="iphone", backend="coreml", options={"target": "iphone"}),
    )
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
    known = [one.name for one in fields(DeviceProfile)]
    for key in content:
        if key not in known:
            raise UserError(f"{path}: {key!r} is not one of {', '.join(known)}; remove it")
    try:
        name = content.get("name", path.stem)
        board = vars(builtin_devices()[name]) if name in BOARDS else {}
        return DeviceProfile(**{"name": path.stem, **board, **content})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
