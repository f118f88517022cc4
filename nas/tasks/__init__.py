"""Tasks: the data, the training batches and the metrics that a supernet is made for."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import cast

from nas.tasks.task import SPLITS, SplitName, Task
from search_spaces.errors import UserError

# Modules are named, not imported: who only wants the list of tasks should not wait for torch.
TASKS: dict[str, tuple[str, str]] = {
    "image-classification": ("nas.tasks.images", "ImageClassification"),
    "language-modelling": ("nas.tasks.language", "LanguageModelling"),
}


def build_task(kind: str, **parameters: object) -> Task:
    """Build the task `kind` from its flat parameters, which are those of `task:` in the config.

    Args:
        kind: A key of `TASKS`.
        parameters: Keyword arguments of `ImageClassification` or `LanguageModelling`.

    Raises:
        UserError: Unknown kind or parameter, or data that cannot be used.
    """
    if kind not in TASKS:
        raise UserError(f"task.kind {kind!r} is not one of {', '.join(TASKS)}; choose one of these")
    module, name = TASKS[kind]
    build = cast(Callable[..., Task], getattr(import_module(module), name))
    known = inspect.signature(build).parameters
    for parameter in parameters:
        if parameter not in known:
            raise UserError(
                f"task.{parameter} is not a parameter of {kind}; it takes {', '.join(known)}"
            )
    return build(**parameters)


__all__ = ["SPLITS", "TASKS", "SplitName", "Task", "build_task"]
