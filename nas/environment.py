"""What a run was made with: versions, operating system, CPU. No names of people or places."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "elastic-nas",
    "torch",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "pymoo",
    "scikit-learn",
    "safetensors",
    "tokenizers",
    "transformers",
    "ray",
    "pydantic",
    "plotly",
)


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and packages, operating system, CPU, cores and memory, as JSON."""
    return {
        "schema": 1,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": {name: _version(name) for name in _PACKAGES if _version(name)},
        "system": platform.system(),
        "kernel": platform.release(),
        "distribution": _distribution(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
    }


def package_version() -> str:
    """Return the version of this library; `unknown` where it runs from a bare source tree."""
    return _version("elastic-nas") or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return platform.mac_ver()[0] or None


def _cpu() -> str | None:
    """Return the CPU's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or None


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
