"""What this host says of itself: processor, clocks, temperature, throttling.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from latency import governor as governors
from latency import nvidia

RUNTIMES = ("onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "coremltools")
"""Modules that a device may run models with."""
PACKAGES = (*RUNTIMES, "numpy")
"""These, and what every session needs beside one: onnxruntime brings it along, torch does not."""
_VARIANTS = ("-gpu", "-openvino")
"""Packages with another name that have the same module: onnxruntime-gpu."""
_KIND = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part")
_CPU = Path("/sys/devices/system/cpu")
_THROTTLING = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3 of `vcgencmd get_throttled`: what holds a Raspberry Pi back now."""


def cpuinfo() -> str:
    """What the kernel says of the processors; empty where it is not Linux."""
    return _read(Path("/proc/cpuinfo"))


def cpu_model() -> str:
    """Name of the processor, or of the board, as the kernel gives it."""
    facts = _first_cpu()
    for name in ("model name", "Hardware", "Model"):
        if name in facts:
            return facts[name]
    board = _read(Path("/proc/device-tree/model")).strip("\0 \n")
    return board or _mac_cpu() or platform.processor() or platform.machine()


def cpu_kind() -> str:
    """Family, model and stepping: hypervisors give one name to several processors."""
    facts = _first_cpu()
    return "-".join(facts[name] for name in _KIND if name in facts) or "unknown"


def _first_cpu() -> dict[str, str]:
    lines = (line.partition(":") for line in reversed(cpuinfo().splitlines()))
    return {name.strip(): value.strip() for name, _, value in lines}


def available_cpus() -> list[int]:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> str:
    """Share of CPU time that the control group allows, `none` where there is no limit."""
    text = _read(Path("/sys/fs/cgroup/cpu.max")).strip()
    return text if text and not text.startswith("max") else "none"


def governor() -> str:
    """Frequency governor of the first available CPU, `unknown` where it is not readable."""
    cpu = available_cpus()[0]
    return _read(_CPU / f"cpu{cpu}/cpufreq/scaling_governor").strip() or "unknown"


def package_version(module: str) -> str | None:
    """Version of the installed package that has a runtime's module; None where it is missing."""
    package = module.replace("_", "-")
    for name in (package, *(package + variant for variant in _VARIANTS)):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def describe() -> dict[str, Any]:
    """What this machine says of itself.

    Returns:
        `fingerprint`: processor and system, the same until one of them changes; `python`;
        `platform` as in `sys.platform`; `packages`: versions of `PACKAGES` (null: not there);
        `cpus`: those that this process may use; `gpu`: the first NVIDIA GPU, and `no_gpu`: why
        there is none (null: there is one); `governors`: those that this process may set;
        `governor`, `load`, `throttled` and `temperatures_c` of this moment.
    """
    return {
        "fingerprint": {
            "cpu": cpu_model(),
            "cpu_kind": cpu_kind(),
            "cpus": ",".join(str(cpu) for cpu in available_cpus()),
            "cpu_quota": cpu_quota(),
            "governor": governor(),
            "machine": platform.machine(),
            "os": f"{platform.system()} {_os_version()}",
            "kernel": platform.release(),
        },
        "python": platform.python_version(),
        "platform": sys.platform,
        "packages": {module: package_version(module) for module in PACKAGES},
        "cpus": available_cpus(),
        "gpu": nvidia.identity(),
        "no_gpu": nvidia.missing(),
        "governors": governors.settable(available_cpus()),
        "governor": governor(),
        "temperatures_c": temperatures_c(),
        "load": os.getloadavg()[0],
        "throttled": throttling(),
    }


def device_id() -> str:
    """Tells two boards of one kind apart: a digest of the serial number, 12 hex digits."""
    places = ("/proc/device-tree/serial-number", "/etc/machine-id")
    serial = next(filter(None, (_read(Path(place)).strip("\0 \n") for place in places)), "")
    return hashlib.sha256(serial.encode()).hexdigest()[:12] if serial else "unknown"


def state() -> dict[str, object]:
    """What varies from moment to moment: load, clocks (MHz) and temperatures (degree C)."""
    clocks = [_number(path) for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    return {
        "load_average": list(os.getloadavg()),
        "clocks_mhz": [clock / 1000 for clock in clocks] or _cpuinfo_clocks(),
        "temperatures_c": temperatures_c(),
    }


def temperatures_c() -> dict[str, float]:
    """Degree C by thermal zone."""
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*"))
    return {zone.name: _number(zone / "temp") / 1000 for zone in zones}


def throttling() -> list[str]:
    """What holds a Raspberry Pi back at this moment; empty elsewhere.

    Asks `vcgencmd get_throttled`, which takes some milliseconds of one core.
    """
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], stdout=subprocess.PIPE, timeout=5, check=True
        )
        bits = int(done.stdout.decode().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return [name for bit, name in enumerate(_THROTTLING) if bits >> bit & 1]


def _os_version() -> str:
    # Not platform.freedesktop_os_release: that is new in Python 3.10
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        for line in _read(Path(path)).splitlines():
            name, _, value = line.partition("=")
            if name == "PRETTY_NAME":
                return "".join(shlex.split(value))
    return platform.mac_ver()[0] or platform.version()


def _mac_cpu() -> str:
    if sys.platform != "darwin":
        return ""
    done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], stdout=subprocess.PIPE)
    return done.stdout.decode(errors="replace").strip()


def _cpuinfo_clocks() -> list[float]:
    lines = cpuinfo().splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _number(path: Path) -> float:
    text = _read(path).strip()
    return float(text) if text.lstrip("-").isdigit() else float("nan")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
