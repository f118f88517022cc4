"""What a model takes beside time, where the device tells: energy and peak memory."""

from __future__ import annotations

from statistics import median
from typing import Any

from latency.measurement import Measurement

RESOURCES = ("energy_mj", "peak_memory_bytes")
"""Names of the fields of samples, rows and files; an objective is WORKLOAD_NAME."""


def resource_of(found: Measurement) -> dict[str, Any]:
    """What one model takes: the median over sessions; None where the device does not tell."""
    values = {name: list(found.resources.get(name, {}).values()) for name in RESOURCES}
    return {name: median(each) if each else None for name, each in values.items()}
