"""From a checkpoint to the weights of a supernet."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.decoder import DecoderSpace
from search_spaces.errors import UserError
from search_spaces.vit import VisionTransformerSpace
from supernet.checkpoint import load_weights, named_tensors
from supernet.families import Supernet
from supernet.pretrained.families import Pretrained
from supernet.pretrained.normalisation import Normalisation
from supernet.pretrained.vit import VisionCheckpoint


def load_pretrained(
    model: Supernet,
    checkpoint: Pretrained,
    *,
    normalisation: Normalisation | None = None,
    classes: Sequence[str] = (),
) -> list[str]:
    """Give a supernet the weights of a checkpoint, which becomes its largest subnet.

    Args:
        model: Its space must have the checkpoint's network for its largest subnet.
        checkpoint: What `open_pretrained` gave.
        normalisation: Of images: how the task does it; None is as the checkpoint does.
        classes: Of images: what the task tells apart, in order.

    Returns:
        What was done to the weights, a sentence each.

    Raises:
        UserError: Model and checkpoint do not fit, or a file is damaged. The model is unchanged.
    """
    space = model.space
    if isinstance(checkpoint, VisionCheckpoint) and isinstance(space, VisionTransformerSpace):
        checkpoint.check(space)
        weights, notes = checkpoint.weights(space.image_size, normalisation, classes)
    elif not isinstance(checkpoint, VisionCheckpoint) and isinstance(space, DecoderSpace):
        checkpoint.check(space)
        weights, notes = checkpoint.weights(space.vocabulary)
    else:
        raise UserError(
            f"{checkpoint.folder.path} is of the family {checkpoint.family}, the space of "
            f"{space.family}; give a checkpoint that fits task.kind"
        )
    load_weights(model, {**named_tensors(model), **weights}, source=checkpoint.folder.path)
    return notes
