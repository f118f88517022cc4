"""What the system says of the first NVIDIA GPU: `nvidia-smi`, or the files of a Jetson.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

IDENTITY = {"gpu": "name", "driver": "driver_version", "compute_capability": "compute_cap"}
STATE = {
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "throttle_reasons": "clocks_event_reasons.active",
}


def has_models(request: Mapping[str, Any]) -> bool:
    """Whether the models of a session (see `latency.session`) are on the GPU."""
    providers = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    return (
        request.get("runtime") == "tensorrt"
        or request.get("device") == "cuda"
        or request.get("provider") in providers
    )


def missing() -> str | None:
    """Why no NVIDIA GPU can be used here; None where there is one."""
    if identity()["gpu"] != "none":
        return None
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA driver (nvidia-smi is not found); install one on a host with a GPU"
    return "nvidia-smi shows no GPU; `nvidia-smi` on the command line says why"


def identity() -> dict[str, str]:
    """Name, driver version and compute capability; `none` where there is no GPU."""
    return dict(_identity())


@cache
def _identity() -> tuple[tuple[str, str], ...]:
    values = _jetson() or _query(tuple(IDENTITY.values())) or ["none"] * len(IDENTITY)
    return tuple(zip(IDENTITY, values))


def _jetson() -> list[str]:
    """Board and release of a Jetson: not all have an nvidia-smi, and none names the board."""
    try:
        release = Path("/etc/nv_tegra_release").read_text().splitlines()[0].strip("# ")
        board = Path("/proc/device-tree/model").read_text().strip("\0 \n")
    except (OSError, IndexError):
        return []
    return [board, release, "unknown"]


def state() -> dict[str, str]:
    """Clocks, temperature, power and throttle reasons of this moment; empty without a GPU."""
    values = _query(tuple(STATE.values()))
    return dict(zip(STATE, values)) if values else {}


def _query(names: tuple[str, ...]) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = done.stdout.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    return values if len(values) == len(names) else []
