"""What a model takes beside time, where the device tells: energy and peak memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from latency.measurement import Measurement

RESOURCES = ("energy_mj", "peak_memory_bytes")
"""Names of the fields of samples, rows and files; an objective is WORKLOAD_NAME."""


def resource_of(found: Sequence[Measurement], copies: int) -> dict[str, Any]:
    """What one model takes, or one of the blocks in which two chains differ.

    Args:
        found: The model's measurement; or those of the shorter and of the longer chain.
        copies: How many blocks they differ in; 1 for a model.

    Returns:
        The median over sessions of each resource; None where the device does not tell.
    """
    result: dict[str, Any] = {}
    for name in RESOURCES:
        few, many = found[0].resources.get(name, {}), found[-1].resources.get(name, {})
        values = list(few.values()) if len(found) == 1 else _differences(few, many)
        result[name] = max(median(values), 0.0) / copies if values else None
    return result


def _differences(few: Mapping[str, float], many: Mapping[str, float]) -> list[float]:
    return [many[session] - few[session] for session in few if session in many]
