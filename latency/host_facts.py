"""What this host says of itself: processor, system, clocks, temperature."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")


def cpu_model() -> str:
    """Name of the processor as the kernel gives it."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


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


def host_fingerprint(affinity: Sequence[int] | None = None) -> dict[str, str]:
    """Processor and system, the same until one of them changes.

    Args:
        affinity: CPUs that are used; None for all that are available.
    """
    return {
        "cpu": cpu_model(),
        "cpus": ",".join(str(cpu) for cpu in affinity or available_cpus()),
        "cpu_quota": cpu_quota(),
        "governor": governor(),
        "machine": platform.machine(),
        "os": f"{platform.system()} {_os_version()}",
        "kernel": platform.release(),
    }


def _os_version() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.version()


def state() -> dict[str, object]:
    """What varies from moment to moment: load, clocks (MHz) and temperatures (degree C)."""
    clocks = [_number(path) for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    temperatures = {
        path.name: _number(path / "temp") / 1000
        for path in sorted(Path("/sys/class/thermal").glob("thermal_zone*"))
    }
    return {
        "load_average": list(os.getloadavg()),
        "clocks_mhz": [clock / 1000 for clock in clocks] or _cpuinfo_clocks(),
        "temperatures_c": temperatures,
    }


def _cpuinfo_clocks() -> list[float]:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _number(path: Path) -> float:
    text = _read(path).strip()
    return float(text) if text.lstrip("-").isdigit() else float("nan")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
