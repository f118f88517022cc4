"""What all models of a session share is the session's, not theirs: it is taken out.

A session is a fresh process, and the anchor in it is one sample of a process: its error is in
every ratio of the session. With some eight candidates in each session and changing company, the
sessions are the blocks of an incomplete block design (R. A. Fisher and F. Yates), in which the
effects of blocks and of treatments can be told apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from latency.store import History

MIN_SESSIONS = 3
"""A model with fewer sessions says nothing of the effect of one."""
ITERATIONS = 20

Key = tuple[str, str]


def without_session_effects(
    history: Mapping[Key, Sequence[History]],
) -> dict[Key, list[History]]:
    """The same sessions, each ratio divided by what the session did to the other models.

    log(ratio) = model + effect of its session + error. An effect is the median of what the
    *other* models of the session deviate from themselves, so that no model's own error is taken
    for its session's; and it is pulled to 0 as if one more model had said 0. A model that was
    alone in its sessions keeps its ratios.

    Args:
        history: Sessions by model. Only models given here tell of effects.
    """
    logs = {
        key: {e.session_id: math.log(e.ratio) for e in entries if e.ratio is not None}
        for key, entries in history.items()
    }
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

    def adjusted(key: Key, entry: History) -> History:
        if entry.ratio is None:
            return entry
        session = entry.session_id
        others = [
            logs[other][session] - model[other]
            for other in members.get(session, ())
            if other != key
        ]
        return replace(entry, ratio=entry.ratio * math.exp(-_effect(others)))

    return {key: [adjusted(key, entry) for entry in entries] for key, entries in history.items()}


def _effect(deviations: Sequence[float]) -> float:
    count = len(deviations)
    return median(deviations) * count / (count + 1) if count else 0.0
