"""What a session did to all its models alike is told apart from what they are.

A session is a fresh process, and the anchor in it is one sample of a process: its error is in
every ratio of the session. With some eight candidates in each session and changing company, the
sessions are the blocks of an incomplete block design (R. A. Fisher and F. Yates), in which the
effects of blocks and of treatments can be told apart: differences between models are then free of
the sessions. What the mean of all sessions errs by stays in every model; it is given beside.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev

from latency.statistics import t_quantile
from latency.store import History

MIN_SESSIONS = 3
"""A model with fewer sessions says nothing of the effect of one."""
ITERATIONS = 20

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelSessions:
    """The sessions of one model, without their effects."""

    entries: Sequence[History]
    shared: float = 0.0
    """Standard error of log(ratio) that all models err by alike: of the mean of the effects."""
    shared_half_width: float = 0.0
    """Half-width of the 95 % t-interval of that."""


def accepted(history: Sequence[History]) -> list[History]:
    """The accepted sessions that gave a ratio."""
    return [entry for entry in _with_ratio(history) if entry.outcome == "accepted"]


def usable(history: Sequence[History]) -> list[History]:
    """The accepted sessions that gave a ratio; the drifted ones too where those are all."""
    found = accepted(history)
    # A ratio is taken within rounds, so drift hurts it little: better an unstable number than none
    return found if len(found) >= 2 else [e for e in _with_ratio(history) if e.outcome != "hot"]


def without_session_effects(
    history: Mapping[Key, Sequence[History]], wanted: Collection[Key]
) -> dict[Key, ModelSessions]:
    """The sessions of models, each ratio divided by what the session did to the other models.

    log(ratio) = model + effect of its session + error. An effect is the median of what the
    *other* models of the session deviate from themselves, so that no model's own error is taken
    for its session's; and it is pulled to 0 as if one more model had said 0. A model that was
    alone in its sessions keeps its ratios.

    Sessions tell of one another where they share a model. What was measured apart does not
    count, so that a latency does not change with what is measured later. Nor do discarded
    sessions: what a busy machine did to them is no error of the others.

    Args:
        history: Everything that is stored of a device in one mode, by model.
        wanted: The models to return.
    """
    logs = {
        key: {e.session_id: math.log(e.ratio) for e in accepted(entries) if e.ratio is not None}
        for key, entries in history.items()
    }
    result: dict[Key, ModelSessions] = {}
    for keys in _connected(logs, wanted):
        result |= _adjust({key: history[key] for key in keys}, {key: logs[key] for key in keys})
    rest = {key: ModelSessions(entries=list(history.get(key, ()))) for key in wanted}
    return {key: result.get(key, rest[key]) for key in wanted}


def _connected(logs: Mapping[Key, Mapping[str, float]], wanted: Collection[Key]) -> list[list[Key]]:
    """The wanted models with all that share a session with them, or with one that does."""
    members: dict[str, list[Key]] = {}
    for key, values in logs.items():
        for session in values:
            members.setdefault(session, []).append(key)
    seen: set[Key] = set()
    groups = []
    for start in wanted:
        if start in seen or start not in logs:
            continue
        seen.add(start)
        group, waiting = [], [start]
        while waiting:
            key = waiting.pop()
            group.append(key)
            near = {other for session in logs[key] for other in members[session]} - seen
            seen |= near
            waiting += sorted(near)
        groups.append(sorted(group))
    return groups


def _adjust(
    history: Mapping[Key, Sequence[History]], logs: Mapping[Key, Mapping[str, float]]
) -> dict[Key, ModelSessions]:
    """`without_session_effects` for models that are all connected."""
    telling = {key: values for key, values in logs.items() if len(values) >= MIN_SESSIONS}
    members: dict[str, list[Key]] = {}
    for key, values in telling.items():
        for session in values:
            members.setdefault(session, []).append(key)
    effects = dict.fromkeys(members, 0.0)
    model = dict.fromkeys(telling, 0.0)
    for _ in range(ITERATIONS):
        for key, values in telling.items():
            model[key] = median(value - effects[session] for session, value in values.items())
        for session, keys in members.items():
            effects[session] = _effect([logs[key][session] - model[key] for key in keys])
    # Not pulled to 0: how far effects are apart
    apart = [
        effect * (len(members[session]) + 1) / len(members[session])
        for session, effect in effects.items()
        if len(members[session]) > 1
    ]
    shared = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    half_width = shared * t_quantile(len(apart) - 1) if len(apart) > 1 else 0.0

    def adjusted(key: Key) -> ModelSessions:
        entries, alone = [], True
        for entry in history[key]:
            others = [
                logs[other][entry.session_id] - model[other]
                for other in members.get(entry.session_id, ())
                if other != key
            ]
            if entry.ratio is not None and others:
                entry, alone = replace(entry, ratio=entry.ratio * math.exp(-_effect(others))), False
            entries.append(entry)
        if alone:
            return ModelSessions(entries=entries)
        return ModelSessions(entries=entries, shared=shared, shared_half_width=half_width)

    return {key: adjusted(key) for key in history}


def _with_ratio(history: Sequence[History]) -> list[History]:
    return [entry for entry in history if entry.status == "ok" and entry.ratio is not None]


def _effect(deviations: Sequence[float]) -> float:
    count = len(deviations)
    return median(deviations) * count / (count + 1) if count else 0.0
