"""Start a training from a network that was trained before, rather than from random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.config import Config
from nas.tasks import Task
from nas.tasks.tokenizer import BpeTokenizer, tokenizer_digest
from search_spaces import UserError
from supernet.families import Supernet
from supernet.pretrained import (
    DecoderCheckpoint,
    Normalisation,
    Pretrained,
    load_pretrained,
    measure_importance,
    open_pretrained,
    reorder,
)

IMPORTANCE_BATCHES = 8
"""Training batches that importance is measured on."""


def open_start(config: Config) -> Pretrained | None:
    """The checkpoint that a configuration names; None without one.

    Raises:
        UserError: It cannot be read, or is not one that a supernet can hold.
    """
    if config.training.pretrained is None:
        return None
    return open_pretrained(Path(config.training.pretrained).expanduser())


def check_start(start: Pretrained) -> None:
    """Refuse what no training could start from, as far as that shows without data and a space.

    Raises:
        UserError: A tensor is missing, has another shape or no place in a supernet, a file is
            damaged, or the tokenizer cannot be used.
    """
    if isinstance(start, DecoderCheckpoint):
        if start.folder.tokenizer is not None:
            start.check_vocabulary(_load_tokenizer(start.folder.tokenizer).vocabulary)
        start.weights(start.vocabulary)
    else:
        start.weights(start.image_size)


def identity(config: Config, start: Pretrained) -> dict[str, Any]:
    """What weights a training started from: JSON values."""
    order = config.training.importance_order
    return {"sha256": start.folder.digest, "importance_order": order}


def give_start(config: Config, task: Task, model: Supernet, start: Pretrained) -> list[str]:
    """Give a supernet the weights of a checkpoint, in the order of their importance.

    Args:
        config: Says whether they are put in that order.
        task: How images are normalised, which tokens there are; its first training batches are
            what importance is measured on.
        model: The supernet.
        start: The checkpoint.

    Returns:
        What was done to the weights, a sentence each.

    Raises:
        UserError: Checkpoint, task and space do not fit, or a file is damaged.
    """
    normalisation, classes = None, ()
    if task.kind == "image-classification":
        how = task.record["normalisation"]
        normalisation = Normalisation(mean=tuple(how["mean"]), std=tuple(how["std"]))
        classes = tuple(task.record["classes"])
    else:
        _check_tokenizer(task, start)
    notes = load_pretrained(model, start, normalisation=normalisation, classes=classes)
    if config.training.importance_order:
        batches = (task.batch(step) for step in range(IMPORTANCE_BATCHES))
        reorder(model, measure_importance(model, batches))
        notes.append("what is most important was put first")
    return notes


def check_unchanged_start(config: Config, trained_from: dict[str, Any] | None) -> None:
    """Refuse a checkpoint that is not what the supernet was trained from; one that is gone is fine.

    Raises:
        UserError: Its content has changed.
    """
    path = config.training.pretrained
    if path is None or trained_from is None or not Path(path).expanduser().is_dir():
        return
    start = open_start(config)
    if start is not None and start.folder.digest != trained_from["sha256"]:
        raise UserError(
            f"training.pretrained {path} has another content than when {config.output} was "
            "trained from it; restore it, or give another directory with output=DIRECTORY"
        )


def _check_tokenizer(task: Task, start: Pretrained) -> None:
    """Refuse tokens that mean something else to the checkpoint."""
    path = start.folder.tokenizer
    if path is None:
        return
    if tokenizer_digest(_load_tokenizer(path)) != task.record["tokenizer"]["sha256"]:
        raise UserError(
            f"task.tokenizer is not the one of {start.folder.path}, to which the same tokens mean "
            f"other texts; write task.tokenizer: {path}"
        )


def _load_tokenizer(path: Path) -> BpeTokenizer:
    try:
        return BpeTokenizer.load(path)
    except UserError as error:
        reason = str(error).partition(";")[0]
        raise UserError(
            f"{path} cannot be used here: {reason}; no other tokenizer fits its weights, so take "
            "another checkpoint"
        ) from None
