"""The keys of a device profile that say where the device is, and the place that they name."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING

from latency.backend import DeviceLostError
from latency.place import Place, ThisHost
from latency.remote_host import RemoteHost
from latency.transport import LocalTransport, Transport
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from latency.device_profile import DeviceProfile

TRANSPORTS = ("local", "ssh")
TEXTS = ("host", "user", "identity", "known_hosts", "python", "folder")
BEHIND_SSH = ("host", "port", "user", "identity", "known_hosts")


def check_transport(profile: DeviceProfile) -> None:
    """Check types and values of the keys from `transport` on.

    Raises:
        UserError: One of them is wrong.
    """
    if profile.transport not in TRANSPORTS:
        raise UserError(
            f"transport {profile.transport!r} of device {profile.name} is not one of "
            f"{', '.join(TRANSPORTS)}"
        )
    for name in TEXTS:
        value = getattr(profile, name)
        absent = value is None and name != "folder"
        if not absent and (not isinstance(value, str) or not value):
            raise UserError(f"{name} {value!r} of device {profile.name} is not a text; set it")
    if profile.host is not None and profile.host.startswith("-"):
        raise UserError(f"host {profile.host!r} of device {profile.name} is not a host's name")
    port = profile.port
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise UserError(f"port {port!r} of device {profile.name} is not in 1..65535")
    if profile.transport == "ssh":
        return
    # Else this host would be measured under the name of another
    for key in fields(profile):
        value = getattr(profile, key.name)
        if key.name in BEHIND_SSH and value != key.default:
            raise UserError(
                f"{key.name} {value!r} of device {profile.name} is for a device behind SSH; "
                f"write `transport: ssh` too, or remove {key.name}"
            )


def open_place(profile: DeviceProfile) -> Place:
    """Where the sessions of a device run; connects to nothing.

    Raises:
        UserError: The host is not set, or `python` is not an interpreter's name.
    """
    return open_remote(profile) if profile.by_agent else ThisHost(profile.preparation)


def open_remote(profile: DeviceProfile) -> RemoteHost:
    """The place of a device behind SSH, or of another interpreter of this host.

    Raises:
        UserError: See `open_place`.
    """
    return RemoteHost(_transport(profile), folder=profile.folder, preparation=profile.preparation)


def clean_device(profile: DeviceProfile) -> None:
    """Remove the agent and all it keeps from a device.

    Raises:
        UserError: The device has no agent, or cannot be reached.
    """
    if not profile.by_agent:
        raise UserError(f"device {profile.name} is measured without an agent: nothing to clean")
    try:
        with closing(open_remote(profile)) as place:
            place.clean()
    except (UserError, DeviceLostError) as error:
        raise UserError(f"device {profile.name}: {error}") from None


def _transport(profile: DeviceProfile) -> Transport:
    if profile.transport == "local":
        return LocalTransport(profile.python or sys.executable)
    if profile.host is None:
        raise UserError(f"its host is not set; write `host: NAME` into devices/{profile.name}.yaml")
    from latency.ssh import SshTransport  # here: asyncio takes a while to import

    return SshTransport(
        profile.host,
        port=profile.port,
        user=profile.user,
        identity=profile.identity,
        known_hosts=profile.known_hosts,
        python=profile.python or "python3",
    )
