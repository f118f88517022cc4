"""The commands about devices."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from latency.device_profile import WITH_THREADS, DeviceProfile
from latency.devices import get_device, list_devices, obstacle
from latency.doctor import doctor as examine
from nas.cli.streams import print_text


def devices(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the device profiles and which of them can be measured from here, or clean one up.

    The summary's `ok` is False when a profile's file is of no use.
    """
    if arguments.clean is not None:
        return _clean(get_device(arguments.clean))
    profiles, broken = list_devices()
    with ThreadPoolExecutor(len(profiles)) as pool:  # a device that is off takes its time
        obstacles = dict(zip(profiles, pool.map(obstacle, profiles.values()), strict=True))
    if arguments.json:
        return {
            "devices": [
                {**_listed(profile), "reachable": not obstacles[name], "obstacle": obstacles[name]}
                for name, profile in profiles.items()
            ],
            "broken": [{"name": name, "message": line} for name, line in broken.items()],
            "ok": not broken,
        }
    width = max(len(name) for name in (*profiles, *broken))
    for name, profile in profiles.items():
        print_text(f"{name:<{width}}  {_describe(profile)}")
        state = (obstacles[name] or "reachable").removeprefix(f"device {name}: ")
        print_text(f"{'':<{width}}    {state}")
    for name, line in broken.items():
        print_text(f"{name:<{width}}  cannot be used\n{'':<{width}}    {line}")
    return {"ok": not broken}


def _listed(profile: DeviceProfile) -> dict[str, Any]:
    return {**asdict(profile), "spinning": profile.spins, "precisions": list(profile.offered)}


def _describe(profile: DeviceProfile) -> str:
    words = [profile.backend]
    if profile.backend == "onnxruntime":
        words.append(profile.provider)
    words += [f"{name} {value}" for name, value in profile.options.items()]
    if profile.backend in WITH_THREADS:
        words.append(f"{profile.threads} thread{'s' * (profile.threads != 1)}")
    words.append(f"offers {' '.join(profile.offered)}")
    if prepared := str(profile.preparation):
        words.append(prepared)
    for name, call in profile.workloads.items():
        words.append(" ".join([f"workload {name}:", *(f"{key} {call[key]}" for key in call)]))
    if profile.transport == "ssh":
        words.append(f"behind SSH on {profile.host or 'a host that is not set yet'}")
    return ", ".join(words)


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
