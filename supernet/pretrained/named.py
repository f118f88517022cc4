"""The tensors of a checkpoint, each taken once by its name and with the shape it must have."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from search_spaces.errors import UserError


class NamedTensors:
    """What is left of a checkpoint's tensors.

    Args:
        tensors: By name.
        source: The folder, for messages.
    """

    def __init__(self, tensors: dict[str, Tensor], source: Path) -> None:
        self.tensors = tensors
        self.source = source

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def take(self, *names: str, shape: tuple[int, ...]) -> Tensor:
        """Remove a tensor and give it.

        Args:
            names: Under which versions of the library knew it.
            shape: What it must have.

        Raises:
            UserError: It is not there, or has another shape.
        """
        name = next((name for name in names if name in self.tensors), None)
        if name is None:
            raise UserError(
                f"{self.source} has no tensor {names[0]!r}; copy its safetensors files again, or "
                "write the folder again with save_pretrained"
            )
        tensor = self.tensors.pop(name)
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"tensor {name!r} in {self.source} has shape {tuple(tensor.shape)}, but its "
                f"config.json says {shape}; take both from the same checkpoint"
            )
        return tensor

    def check_all_taken(self, ignored: str) -> None:
        """Refuse a tensor that was not taken: it would change what the network gives.

        Args:
            ignored: Regular expression of the names that do nothing for the outputs.

        Raises:
            UserError: There is another one.
        """
        left = sorted(name for name in self.tensors if not re.fullmatch(ignored, name))
        if left:
            raise UserError(
                f"{self.source} has a tensor {left[0]!r} ({len(left)} such) that the network here "
                "has no place for, so that its outputs would differ; take another checkpoint"
            )
