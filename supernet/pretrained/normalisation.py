"""How pixels were normalised: what a patch embedding absorbs of the difference between two ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.errors import UserError
from supernet.pretrained.keys import is_number


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """`(pixel - mean) / std` of each channel, white being 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_processor(
        cls, settings: Mapping[str, Any], channels: int, source: Path
    ) -> Normalisation:
        """What `preprocessor_config.json` says.

        Raises:
            UserError: Values are missing, of another number than the channels, or no numbers.
        """
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        if not is_number(scale) or not scale > 0:
            raise UserError(f"{source}: rescale_factor is {scale!r}, which is no positive number")
        mean, std = [0.0] * channels, [1.0] * channels
        if settings.get("do_normalize", True):
            mean = _per_channel(settings, "image_mean", channels, source)
            std = _per_channel(settings, "image_std", channels, source)
        white = 255 * scale  # the library's pixels are bytes
        return cls(mean=tuple(m / white for m in mean), std=tuple(s / white for s in std))

    def folded(self, weight: Tensor, bias: Tensor, task: Normalisation) -> tuple[Tensor, Tensor]:
        """The patch embedding for images that a task normalises.

        Patches do not overlap a border, so that this is exact.

        Args:
            weight: For images normalised as here, shape `(E, C, p, p)`.
            bias: Shape `(E,)`.
            task: How the task does it.

        Returns:
            Weight and bias, of the same shapes.
        """
        ours = torch.tensor([self.mean, self.std], dtype=torch.float64)
        theirs = torch.tensor([task.mean, task.std], dtype=torch.float64)
        scale = theirs[1] / ours[1]  # (C,)
        shift = (theirs[0] - ours[0]) / ours[1]  # (C,)
        exact = weight.double()
        moved = bias.double() + torch.einsum("ecij,c->e", exact, shift)
        return (exact * scale[:, None, None]).to(weight.dtype), moved.to(bias.dtype)


def _per_channel(
    settings: Mapping[str, Any], name: str, channels: int, source: Path
) -> list[float]:
    values: object = settings.get(name)
    if is_number(values):
        values = [values] * channels
    if (
        not isinstance(values, Sequence)
        or len(values) != channels
        or not all(is_number(v) for v in values)
        or (name == "image_std" and not all(v > 0 for v in values))
    ):
        raise UserError(
            f"{source}: {name} is {values!r}, which are not {channels} numbers, one a channel; "
            "write the folder again with save_pretrained"
        )
    return [float(value) for value in values]
