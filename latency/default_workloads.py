"""The calls that a device's profile has for runs that name none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from search_spaces.blocks import Workload
from search_spaces.errors import UserError

KEYS = tuple(one.name for one in fields(Workload))


def check_workloads(device: str, workloads: object) -> None:
    """Check the key `workloads` of a profile.

    Raises:
        UserError: It is not a mapping of names to `batch`, `sequence` and `past`.
    """
    what = f"workloads of device {device}"
    if not isinstance(workloads, Mapping):
        raise UserError(f"{what}: {workloads!r} is not a mapping; write `name: {{batch: 1}}`")
    for name, call in workloads.items():
        if not (isinstance(name, str) and name.isidentifier() and isinstance(call, Mapping)):
            raise UserError(f"{what}: {name!r}: {call!r}; write `name: {{batch: 1}}`")
        for key, value in call.items():
            if key not in KEYS:
                raise UserError(f"{what}: {name}: {key!r} is not one of {', '.join(KEYS)}")
            if type(value) is not int:
                raise UserError(f"{what}: {name}: {key} {value!r} is not a whole number")
        try:
            Workload(**call)
        except UserError as error:
            raise UserError(f"{what}: {name}: {error}") from None


def workloads_for(
    workloads: Mapping[str, Mapping[str, int]], *, context: int | None, device: str
) -> dict[str, dict[str, int]]:
    """Those that fit a task: with `sequence` or `past` they are of language models.

    Args:
        workloads: Of a checked profile.
        context: Longest sequence of a language model; None for images.
        device: Name of the device, for the message.

    Raises:
        UserError: One is longer than the context.
    """
    found = {}
    for name, call in workloads.items():
        tokens = call.get("sequence", 1 if call.get("past") else 0) + call.get("past", 0)
        if bool(tokens) != (context is not None):
            continue
        if context is not None and tokens > context:
            raise UserError(
                f"device {device} has {name}, a call of {tokens} tokens, for runs that name no "
                f"workloads, but task.context is {context}; write workloads of your own"
            )
        found[name] = dict(call)
    return found
