"""Whole subnets that were timed: what predictors are fitted on, and what `table.json` keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from latency.measurement import Measurement
from latency.resources import RESOURCES, amounts_of, resource_fields
from latency.table_store import StoredRow
from search_spaces import Architecture


@dataclass(frozen=True, kw_only=True)
class WholeSubnet:
    """One subnet under one workload; without a latency if none could be measured."""

    architecture: Architecture
    measured_ms: float | None
    low_ms: float | None
    high_ms: float | None
    """Ends of the 95 % interval over sessions."""
    mode: str
    """`quick` or `standard`: of its sessions."""
    status: str
    """See `latency.measurement.Status`."""
    resources: dict[str, Any]
    """Energy and peak memory with their intervals; see `latency.resources.resource_fields`."""
    session_ratios: dict[str, float] = field(default_factory=dict)
    """Candidate over anchor per session id; empty where that is not known."""
    shared: float = 0.0
    """Standard error of log(ratio) in common with those of the same sessions; 0 if unknown."""

    @classmethod
    def of_measurement(cls, architecture: Architecture, found: Measurement) -> Self:
        """What was measured now, or is known of its sessions."""
        return cls(
            architecture=architecture,
            measured_ms=_ms(found.median_ns),
            low_ms=_ms(found.low_ns),
            high_ms=_ms(found.high_ns),
            mode=mode_of(found),
            status=found.status,
            resources=resource_fields(amounts_of(found)),
            session_ratios=dict(found.session_ratios),
            shared=found.shared,
        )

    @classmethod
    def of_row(cls, architecture: Architecture, row: StoredRow, mode: str) -> Self:
        """What a table of the device holds, perhaps from a file."""
        return cls(
            architecture=architecture,
            measured_ms=row.latency_ms,
            low_ms=row.low_ms,
            high_ms=row.high_ms,
            mode=mode,
            status=row.status,
            resources=resources_of(row),
            session_ratios=_ratios(row),
            shared=_shared(row),
        )

    def to_json(self, workload: str, predicted_ms: float) -> dict[str, Any]:
        """As it stands in `table.json`."""
        return {
            "workload": workload,
            "architecture": dict(self.architecture),
            "predicted_ms": predicted_ms,
            "measured_ms": self.measured_ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "status": self.status,
            "mode": self.mode,
            **self.resources,
        }


def mode_of(found: Measurement) -> str:
    """The mode of a measurement's sessions, which may be better than was asked for."""
    return "quick" if found.quick else "standard"


def resources_of(row: StoredRow) -> dict[str, Any]:
    """Energy and peak memory of a stored row; their intervals are in its provenance."""
    kept = row.provenance.get("intervals")
    found: dict[str, Any] = {}
    for name in RESOURCES:
        ends = kept.get(name) if isinstance(kept, dict) else None
        known = isinstance(ends, list) and [type(end) for end in ends] == [float, float]
        found |= {name: getattr(row, name), f"{name}_interval": ends if known else None}
    return found


def intervals_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The intervals of fields with resources, as they are kept in a row's provenance."""
    ends = {name: fields[f"{name}_interval"] for name in RESOURCES}
    return {name: list(each) for name, each in ends.items() if each is not None}


def _ms(latency_ns: float | None) -> float | None:
    return None if latency_ns is None else latency_ns / 1e6


def _ratios(row: StoredRow) -> dict[str, float]:
    try:
        (model,), sessions = row.provenance["models"], row.provenance["sessions"]
        pairs = zip(sessions, model["ratios"], strict=True)
        found = {str(session["session_id"]): float(ratio) for session, ratio in pairs}
    except (KeyError, TypeError, ValueError):
        return {}
    return found if all(math.isfinite(r) and r > 0 for r in found.values()) else {}


def _shared(row: StoredRow) -> float:
    value = row.provenance.get("shared_error")
    return value if isinstance(value, float) and 0 <= value < math.inf else 0.0
