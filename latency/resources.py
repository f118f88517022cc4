"""What a model takes beside time, where the device tells: energy and peak memory."""

from __future__ import annotations

import math
from typing import Any

from latency.measurement import Measurement
from latency.statistics import mean_interval

RESOURCES = ("energy_mj", "peak_memory_bytes")
"""Names of the fields of samples, rows and files; an objective is WORKLOAD_NAME. A field
NAME_interval beside it holds the ends of the 95 % interval."""

Amount = tuple[float, float]
"""Mean over sessions, and the half-width of its 95 % t-interval: infinite for one session."""


def amounts_of(found: Measurement) -> dict[str, Amount | None]:
    """What one model takes, by name; None where the device does not tell."""
    values = {name: list(found.resources.get(name, {}).values()) for name in RESOURCES}
    return {name: mean_interval(each) if each else None for name, each in values.items()}


def resource_fields(amounts: dict[str, Amount | None]) -> dict[str, Any]:
    """Amounts as the fields of a row or a file: the mean, and its interval or None."""
    fields: dict[str, Any] = {}
    for name, amount in amounts.items():
        known = amount is not None and math.isfinite(amount[1])
        fields[name] = None if amount is None else amount[0]
        fields[f"{name}_interval"] = (
            (max(amount[0] - amount[1], 0.0), amount[0] + amount[1])
            if amount is not None and known
            else None
        )
    return fields
