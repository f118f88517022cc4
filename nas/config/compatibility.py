"""What a run directory was made for, and may not change under it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.config.messages import shown
from nas.config.model import Config
from search_spaces.errors import UserError

_FIXED = ("task", "space", "training", "seed")
_FREE = {
    "training.checkpoint_every_s",
    "training.log_every",
    "space.precision",
    "space.precision_ends",
}


def check_same_supernet(config: Config, previous: Config, directory: str) -> None:
    """Refuse a configuration that would train another supernet than the one in a run directory.

    Device, workloads, latency and search may change: their stages redo what depends on them.

    Args:
        config: What is asked for now.
        previous: What the directory was made with.
        directory: The run directory, for the message.

    Raises:
        UserError: With the first key that differs, both values, and the next step.
    """
    now, then = dict(_fixed_values(config)), dict(_fixed_values(previous))
    for key in {**now, **then}:
        if now.get(key) != then.get(key):
            raise UserError(
                f"{key} is {shown(now.get(key))}, but {directory} was trained with "
                f"{shown(then.get(key))}; give another directory with output=DIRECTORY, or "
                f"delete {directory}"
            )


def _fixed_values(config: Config) -> Iterator[tuple[str, Any]]:
    dumped = config.model_dump(mode="json")
    for section in _FIXED:
        for key, value in _flat(section, dumped[section]):
            if key in ("task.data", "training.pretrained") and value is not None:
                # The same folder by another spelling is the same data.
                value = str(Path(value).expanduser())
            if key not in _FREE:
                yield key, value


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(f"{prefix}.{name}", below)
    else:
        yield prefix, value
