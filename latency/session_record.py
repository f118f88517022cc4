"""What a session leaves behind: judged, and in the form in which it is stored."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from latency.artifact import Artifact
from latency.backend import Block, Samples
from latency.calm import LIMIT, SAME_STATE
from latency.statistics import session_ratio
from latency.store import ModelRecord, SessionRecord
from latency.timing import TimingConfig


def timed_session(
    about: Mapping[str, Any],
    models: Sequence[Artifact],
    samples: Sequence[Samples],
    timing: TimingConfig,
    *,
    calm_ns: float | None = None,
) -> SessionRecord:
    """A session that gave latencies: ratios, drift, and whether the device was hot.

    Args:
        about: session_id, seed, started_at, timing.
        models: The anchor first.
        samples: One per model, in that order.
        timing: Says how much drift is too much, and which anchor is hot. A device that throttled
            (fact `throttled`) is hot as well.
        calm_ns: What the anchor takes in accepted sessions on the calm device, if there are any. A
            session whose anchor took as much in its rounds is not discarded for drift: a machine
            that was busy at either end did nothing to the ratios.
    """
    anchor = samples[0].blocks
    rounds = _in_rounds(anchor, timing)
    before = [block for block in anchor if block.round < 0]
    after = [block for block in anchor if block.round >= timing.rounds]
    drift = _anchor_ns(after) / _anchor_ns(before) - 1
    anchor_ns = median(rounds)
    calm = calm_ns is not None and calm_ns / SAME_STATE <= anchor_ns <= LIMIT * calm_ns
    drifts = abs(drift) > timing.drift_limit
    drifted = drifts and not calm
    limit_ns = math.inf if (usual := timing.baseline_ns) is None else usual * timing.sentinel_limit
    slow = anchor_ns > limit_ns
    throttled = _throttled(samples[0].session)
    records = [
        ModelRecord(
            artifact=model,
            status="ok",
            ratio=session_ratio(_in_rounds(one.blocks, timing), rounds),
            samples=one,
        )
        for model, one in zip(models, samples, strict=True)
    ]
    message = ""
    if drifted:
        message = f"the anchor drifted by {100 * drift:+.1f} %"
    elif throttled:
        message = f"the device held itself back: {', '.join(throttled)}"
    elif slow:
        over = 100 * (anchor_ns / limit_ns - 1)
        message = f"the device is slower than usual, {over:.1f} % beyond the limit"
    elif drifts:
        message = f"the anchor differs by {100 * drift:+.1f} % between the ends, calm in between"
    return SessionRecord(
        **about,
        outcome="drift" if drifted else "accepted",
        hot=slow or bool(throttled),
        ended_at=utc_now(),
        anchor_ns=anchor_ns,
        drift=drift,
        facts=samples[0].session,
        models=records,
        message=message,
    )


def failed_session(
    about: Mapping[str, Any],
    models: Sequence[Artifact],
    outcome: str,
    reasons: Mapping[str, str],
    message: str,
) -> SessionRecord:
    """A session without latencies; `reasons` has a line per model (SHA-256) that is to blame."""
    records = [
        ModelRecord(
            artifact=model,
            status=outcome if model.sha256 in reasons else "cut",
            message=reasons.get(model.sha256, "") if reasons else message,
        )
        for model in models
    ]
    return SessionRecord(
        **about, outcome=outcome, ended_at=utc_now(), models=records, message=message
    )


def _in_rounds(blocks: Sequence[Block], timing: TimingConfig) -> list[float]:
    """Lower quartile of each block of the rounds proper, ns, by round.

    Foreign load only ever adds time: on a busy 2-core machine the ratio of lower quartiles
    repeated itself to 1.1 to 2.7 % between processes, that of medians to 1.8 to 13 %.
    """
    inside = [block for block in blocks if 0 <= block.round < timing.rounds]
    return [block.low_quartile_ns for block in sorted(inside, key=lambda block: block.round)]


def _anchor_ns(blocks: Sequence[Block]) -> float:
    """The calmest block's lower quartile: a throttled clock slows all of them, a burst does not."""
    return min(block.low_quartile_ns for block in blocks)


def utc_now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _throttled(facts: Mapping[str, object]) -> list[str]:
    """What held a session's device back; `latency.host_facts.throttling`, `latency.nvml`."""
    reasons = facts.get("throttled")
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []
