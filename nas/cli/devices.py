"""The commands about devices."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from latency.devices import DeviceProfile, get_device, list_devices
from latency.doctor import doctor as examine
from nas.cli.streams import print_text


def devices(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the device profiles, or clean one device up."""
    if arguments.clean is not None:
        return _clean(get_device(arguments.clean))
    profiles = list_devices()
    if arguments.json:
        return {"devices": [asdict(profile) for profile in profiles.values()]}
    width = max(len(name) for name in profiles)
    for name, profile in profiles.items():
        threads = f"{profile.threads} thread{'s' * (profile.threads != 1)}"
        line = f"{name:<{width}}  {profile.backend}, {profile.provider}, {threads}"
        if profile.transport == "ssh":
            line += f", behind SSH on {profile.host or 'a host that is not set yet'}"
        print_text(line)
    return {}


def doctor(arguments: argparse.Namespace) -> dict[str, Any]:
    """Check a device; the summary's `ok` is False when a check has failed."""
    profile = get_device(arguments.device)
    checks = examine(profile)
    ok = all(check.ok for check in checks)
    if arguments.json:
        listed = [{"name": c.name, "ok": c.ok, "message": c.message} for c in checks]
        return {"device": profile.name, "ok": ok, "checks": listed}
    for check in checks:
        print_text(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.message}")
    print_text(f"device {profile.name} is {'ready' if ok else 'not ready'}")
    return {"ok": ok}


def _clean(profile: DeviceProfile) -> dict[str, Any]:
    from latency.remote_profile import clean_device

    clean_device(profile)
    return {"device": profile.name, "removed": profile.folder}
