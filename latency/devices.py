"""Devices by name: built-in profiles and the user's own YAML files."""

import os
import sys
from contextlib import closing
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from latency import host_facts
from latency.backends import open_backend
from latency.device_profile import DeviceProfile
from latency.yaml_source import parse_yaml
from search_spaces.errors import UserError

BOARDS = ("raspberry-pi-4", "raspberry-pi-5", "jetson-orin", "mac")
"""Built-in devices that a profile of the same name completes, with its host above all."""


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable: {' '.join(str(error).split())}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no `key: value` lines; see `nas devices --help`")
    known = [one.name for one in fields(DeviceProfile)]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            step = f"did you mean {near[0]}?" if near else "remove it"
            raise UserError(f"{path}: {key!r} is not one of {', '.join(known)}; {step}")
    try:
        name = content.get("name", path.stem)
        board = vars(builtin_devices()[name]) if name in BOARDS else {}
        return DeviceProfile(**{"name": path.stem, **board, **content})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
