"""Whole subnets that were timed: what predictors are fitted on, and what `table.json` keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from latency.measurement import Measurement
from latency.resources import RESOURCES, resource_of
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
    status: str
    """See `latency.measurement.Status`."""
    resources: dict[str, Any]
    """By name (`latency.resources.RESOURCES`); None where the device does not tell."""
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
            status=found.status,
            resources=resource_of(found),
            session_ratios=dict(found.session_ratios),
            shared=found.shared,
        )

    @classmethod
    def of_row(cls, architecture: Architecture, row: StoredRow) -> Self:
        """What a table of the device holds, perhaps from a file."""
        return cls(
            architecture=architecture,
            measured_ms=row.latency_ms,
            low_ms=row.low_ms,
            high_ms=row.high_ms,
            status=row.status,
            resources={name: getattr(row, name) for name in RESOURCES},
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
            **self.resources,
        }


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
