"""Which checkpoints can be read, by their `model_type`."""

from __future__ import annotations

from pathlib import Path

from supernet.pretrained.decoder import DecoderCheckpoint
from supernet.pretrained.folder import PretrainedFolder
from supernet.pretrained.keys import Keys
from supernet.pretrained.vit import VisionCheckpoint

Pretrained = VisionCheckpoint | DecoderCheckpoint

READERS: dict[str, type[VisionCheckpoint] | type[DecoderCheckpoint]] = {
    "vit": VisionCheckpoint,
    "llama": DecoderCheckpoint,
    "mistral": DecoderCheckpoint,
}


def open_pretrained(path: Path) -> Pretrained:
    """Read the settings of a checkpoint; its weights are read when they are asked for.

    Args:
        path: A folder that `save_pretrained` wrote.

    Raises:
        UserError: It is no such folder, or not one of a network that a supernet can hold.
    """
    folder = PretrainedFolder.open(path)
    Keys(folder.config, folder.source).expect("model_type", tuple(READERS))
    return READERS[folder.config["model_type"]].of(folder)
