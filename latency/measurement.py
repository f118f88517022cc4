"""From stored sessions to one latency with an interval and a status."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from latency.session_effects import ModelSessions, accepted, usable
from latency.statistics import log_interval
from latency.store import Baseline, History
from latency.timing import TimingConfig

Status = Literal["ok", "unstable", "rejected", "timeout", "lost"]


FAILED: tuple[Status, ...] = ("rejected", "timeout", "lost")
"""States without a latency that was brought to its end."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The latency of one model on one device.

    The latencies are None where no session gave one (`rejected`, `timeout`, `lost`), the
    interval also where only one did.
    """

    sha256: str
    status: Status
    """Only `ok` met its interval; an `unstable` one has numbers, to be used with that word."""
    quick: bool
    """Measured in quick mode."""
    median_ns: float | None = None
    """Ratio times the anchor's baseline on this device."""
    low_ns: float | None = None
    high_ns: float | None = None
    """95 % t-interval over sessions of log(candidate / anchor), times the same baseline."""
    ratio: float | None = None
    """Geometric mean over sessions of candidate over anchor."""
    half_width: float | None = None
    """Half-width of the interval of log(ratio)."""
    shared: float = 0.0
    """Standard error of log(ratio) that all models of these sessions err by alike, within it."""
    shared_half_width: float = 0.0
    """Half-width of the 95 % interval of that."""
    sessions: int = 0
    """Sessions that the numbers come from."""
    discarded: int = 0
    """Sessions thrown away for drift."""
    hot_sessions: int = 0
    """Sessions among `sessions` in which the device was slower than the sentinel allows."""
    session_ratios: Mapping[str, float] = field(default_factory=dict)
    """Candidate over anchor per session id, without the session's effect; see
    `latency.session_effects`. Models that shared a session share the id."""
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Energy and peak memory per session id, by name; see `latency.resources`."""
    baseline_ns: float | None = None
    """The anchor's baseline: ns per unit of `ratio`."""
    message: str = ""
    """Why there is no latency, or what to know of it."""


def final_failure(history: Sequence[History], timing: TimingConfig) -> Status | None:
    """`rejected` or `timeout` if that is settled: such a model is not tried again."""
    if any(entry.status == "rejected" for entry in history):
        return "rejected"
    timeouts = sum(entry.status == "timeout" for entry in history)
    return "timeout" if timeouts > timing.timeout_retries else None


def precise(sessions: ModelSessions, timing: TimingConfig) -> bool:
    """Whether the accepted sessions suffice and their interval meets the target."""
    counted = accepted(sessions.entries)
    if len(counted) < timing.min_sessions:
        return False
    interval = log_interval([entry.ratio for entry in counted if entry.ratio is not None])
    return math.hypot(interval.half_width, sessions.shared_half_width) <= timing.interval_target


def summarize(
    sha256: str,
    sessions: ModelSessions,
    timing: TimingConfig,
    baseline: Baseline | None,
    lost: bool = False,
) -> Measurement:
    """One measurement of all that is stored of a model in one mode.

    Args:
        sha256: The model.
        sessions: What is stored of it, oldest first.
        timing: Says what is enough.
        baseline: The device's; None if there never was a session with latencies.
        lost: The device or the process was given up over this model just now.
    """
    history = sessions.entries
    status: Status = final_failure(history, timing) or ("lost" if lost else "unstable")
    quick = timing.mode == "quick"
    if status in ("rejected", "timeout"):
        message = next(e.message for e in reversed(history) if e.status == status)
        return Measurement(sha256=sha256, status=status, quick=quick, message=message)
    used = usable(history)
    ratios = {entry.session_id: entry.ratio for entry in used if entry.ratio is not None}
    if not ratios or baseline is None:
        message = history[-1].message if history else "no session"
        return Measurement(sha256=sha256, status="lost", quick=quick, message=message)
    if status == "unstable" and precise(sessions, timing):
        status = "ok"
    interval = log_interval(list(ratios.values()))
    half_width = math.hypot(interval.half_width, sessions.shared_half_width)
    known = math.isfinite(half_width)
    scale = interval.ratio * baseline.anchor_ns
    discarded = sum(entry.outcome == "drift" for entry in history)
    return Measurement(
        sha256=sha256,
        status=status,
        quick=quick,
        median_ns=scale,
        low_ns=scale * math.exp(-half_width) if known else None,
        high_ns=scale * math.exp(half_width) if known else None,
        ratio=interval.ratio,
        half_width=half_width if known else None,
        shared=sessions.shared,
        shared_half_width=sessions.shared_half_width,
        sessions=len(ratios),
        discarded=discarded,
        hot_sessions=sum(entry.hot for entry in used),
        session_ratios=ratios,
        resources={
            "energy_mj": _told({e.session_id: e.energy_mj for e in used}),
            "peak_memory_bytes": _told({e.session_id: e.peak_memory_bytes for e in used}),
        },
        baseline_ns=baseline.anchor_ns,
        message="" if status == "ok" else _why(status, half_width, len(used), discarded),
    )


def _told(values: Mapping[str, float | None]) -> dict[str, float]:
    return {session: value for session, value in values.items() if value is not None}


def _why(status: Status, half_width: float, sessions: int, discarded: int) -> str:
    if status == "lost":
        return f"the device was lost after {sessions} sessions"
    width = f"+-{100 * half_width:.1f} %" if math.isfinite(half_width) else "no interval"
    return f"{width} after {sessions} sessions, {discarded} discarded for drift"
