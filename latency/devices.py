"""Devices by name: built-in profiles and the user's own YAML files."""

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

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


def list_devices() -> tuple[dict[str, DeviceProfile], dict[str, str]]:
    """All profiles by name, and of the names whose files are of no use, what is wrong.

    A name that two files have is of no use either: nobody knows which was meant.
    """
    profiles = builtin_devices()
    origins = {name: "the built-in one" for name in profiles if name not in BOARDS}
    broken: dict[str, str] = {}
    for path in (path for folder in device_folders() for path in sorted(folder.glob("*.yaml"))):
        name, profile = path.stem, None
        try:
            content = _read(path)
            name = _name(path, content)
            profile = _profile(path, content)
            if name in origins:
                raise UserError(
                    f"{path}: the device name {name} is taken by {origins[name]}; rename one"
                )
        except UserError as error:
            broken.setdefault(name, str(error))
        if profile is not None and name not in origins:
            profiles[name] = profile
        origins.setdefault(name, str(path))
    return {name: one for name, one in profiles.items() if name not in broken}, broken


def find_profile(name: str) -> DeviceProfile | None:
    """The profile called `name`; None where there is none.

    Raises:
        UserError: Its file is malformed, or two profiles share the name.
    """
    profiles, broken = list_devices()
    if name in broken:
        raise UserError(broken[name])
    return profiles.get(name)


def get_device(name: str) -> DeviceProfile:
    """The profile called `name`.

    Raises:
        UserError: There is none, and the message lists those that there are; or see
            `find_profile`.
    """
    profile = find_profile(name)
    if profile is None:
        raise UserError(
            f"device {name!r} is not one of {', '.join(sorted(list_devices()[0]))}; "
            f"add devices/{name}.yaml for one of your own"
        )
    return profile


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable: {' '.join(str(error).split())}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no `key: value` lines; see `nas devices --help`")
    return content


def _name(path: Path, content: Mapping[str, Any]) -> str:
    """The name that a file gives, or the file's own."""
    name = content.get("name", path.stem)
    return name if isinstance(name, str) else path.stem


def _profile(path: Path, content: Mapping[str, Any]) -> DeviceProfile:
    known = [one.name for one in fields(DeviceProfile)]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            step = f"did you mean {near[0]}?" if near else "remove it"
            raise UserError(f"{path}: {key!r} is not one of {', '.join(known)}; {step}")
    try:
        name = _name(path, content)
        board = vars(builtin_devices()[name]) if name in BOARDS else {}
        return DeviceProfile(**{"name": path.stem, **board, **content})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
