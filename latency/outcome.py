"""What became of a session, as its process tells it: latencies, or an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latency.backend import (
    Block,
    DeviceLostError,
    ModelRejectedError,
    Samples,
    SessionTimeoutError,
)
from search_spaces.errors import UserError


def samples_of(outcome: Mapping[str, Any], where: str) -> list[Samples]:
    """The samples of a session, in the order of its models.

    Args:
        outcome: What `latency.session_process.run_process` returned, here or on a device.
        where: What to call that machine.

    Raises:
        DeviceLostError: The process died.
        ModelRejectedError: The runtime refused a model or its outputs are wrong.
        SessionTimeoutError: It took too long.
        UserError: That machine cannot run any model so.
    """
    reply = _reply(outcome, where)
    if "rejected" in reply:
        raise ModelRejectedError(reply["rejected"])
    return [
        Samples(
            sha256=model["sha256"],
            blocks=tuple(_block(block) for block in model["blocks"]),
            max_abs_difference=model["max_abs_difference"],
            energy_mj=model["energy_mj"],
            peak_memory_bytes=model["peak_memory_bytes"],
            session=reply["facts"],
        )
        for model in reply["models"]
    ]


def engine_hash(outcome: Mapping[str, Any], where: str) -> str:
    """SHA-256 of the engine that a process has built; arguments and errors as above."""
    return str(_reply(outcome, where)["built"])


def _reply(outcome: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "timeout" in outcome:
        raise SessionTimeoutError(outcome["timeout"], outcome["sha256"])
    if "lost" in outcome:
        raise DeviceLostError(outcome["lost"], outcome["sha256"])
    reply: Mapping[str, Any] = outcome["reply"]
    if "refused" in reply:
        raise UserError(f"{where}: {reply['refused']}")
    return reply


def _block(block: Mapping[str, Any]) -> Block:
    return Block(**{**block, "samples_ns": tuple(block["samples_ns"])})
