"""Random changes of training images that keep their class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import UserError

Fill = Literal["zero", "edge"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Shift, rotation, scale and mirroring in one bilinear resampling, then cutout.

    The defaults suit small centred drawings, digits among them (a shift of half a pixel there: one
    of a whole pixel took more steps to the same accuracy); photographs gain from `flip`.
    """

    shift: float | None = None
    """Largest shift in each direction, pixels; None is a sixteenth of the image size."""
    rotate_degrees: float = 10.0
    """Largest rotation either way, degrees."""
    scale: float = 0.1
    """Images grow or shrink by a factor between 1 - scale and 1 + scale."""
    flip: bool = False
    """Mirror left and right with probability one half."""
    cutout: int = 0
    """Side of a square set to the mean of the training images, pixels (arXiv:1708.04552)."""
    fill: Fill = "zero"
    """What comes in at the border: black, or the nearest pixel of the edge."""

    def __post_init__(self) -> None:
        _check("shift", self.shift or 0.0, math.inf)
        _check("rotate_degrees", self.rotate_degrees, 180.0)
        _check("scale", self.scale, 0.9)
        _check("cutout", self.cutout, math.inf)
        if self.fill not in ("zero", "edge"):
            raise UserError(f"task.augment.fill {self.fill!r} is not one of zero, edge; choose one")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "Augmentation":
        """Build from the config's `task.augment`.

        Raises:
            UserError: Unknown key, wrong type or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise UserError(
                    f"task.augment.{name} is not known; choose from {', '.join(sorted(known))}"
                )
            wanted: tuple[type, ...] = (int, float)
            if name == "fill":
                wanted = (str,)
            elif name == "flip":
                wanted = (bool,)
            elif name == "cutout":
                wanted = (int,)
            optional = name == "shift" and value is None
            if not optional and (
                not isinstance(value, wanted) or (isinstance(value, bool) and name != "flip")
            ):
                raise UserError(
                    f"task.augment.{name} {value!r} is not of type "
                    f"{' or '.join(kind.__name__ for kind in wanted)}; correct it"
                )
        return cls(**cast(dict[str, float], dict(values)))  # type: ignore[arg-type]

    def warp(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Resample images at random positions, each image by its own transformation.

        Args:
            images: Pixels where 0 is black, float, `(batch, channels, height, width)`.
            rng: Source of all randomness; a fixed count of numbers is drawn.

        Returns:
            Images of the same shape and type.
        """
        count, _, height, width = images.shape
        draws = rng.uniform(-1.0, 1.0, size=(5, count))
        angle = np.deg2rad(self.rotate_degrees) * draws[0]
        zoom = 1.0 / (1.0 + self.scale * draws[1])
        shift = height / 16 if self.shift is None else self.shift
        mirror = np.where(draws[4] < 0, -1.0, 1.0) if self.flip else 1.0
        cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
        # Rows of the matrices that take an output position to the position it is read from, in
        # pixels from the centre, so that rotations stay rotations in images that are not square.
        rows = np.stack(
            [mirror * cosine, -sine, shift * draws[2], mirror * sine, cosine, shift * draws[3]]
        )
        a, b, c, d, e, f = torch.from_numpy(rows).to(images.dtype)[:, :, None, None]
        y = torch.arange(height, dtype=images.dtype)[None, :, None] - (height - 1) / 2
        x = torch.arange(width, dtype=images.dtype)[None, None, :] - (width - 1) / 2
        # Elementwise, not affine_grid: its matrix product may round by batch and by threads.
        grid = torch.stack(
            [(a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)], dim=-1
        )  # (batch, height, width, 2)
        padding = "zeros" if self.fill == "zero" else "border"
        return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)

    def cut(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Set a random square of each normalised image to 0, the mean.

        Args:
            images: Float, `(batch, channels, height, width)`.
            rng: Source of all randomness.

        Returns:
            Images of the same shape; the same tensor when `cutout` is 0.
        """
        if not self.cutout:
            return images
        count, _, height, width = images.shape
        masks = []
        for size in (height, width):
            start = rng.integers(0, size, size=(count, 1)) - self.cutout // 2
            place = np.arange(size)[None, :] - start
            masks.append((place >= 0) & (place < self.cutout))
        hole = masks[0][:, None, :, None] & masks[1][:, None, None, :]
        return images.masked_fill(torch.from_numpy(hole), 0.0)


def _check(name: str, value: float, limit: float) -> None:
    if not 0 <= value <= limit:
        raise UserError(
            f"task.augment.{name} {value:g} is not between 0 and {limit:g}; choose one that is"
        )
