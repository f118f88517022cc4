"""Images in memory, and the ones built in."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.tasks.task import SplitName
from search_spaces.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """All images of a task, as they were before normalisation."""

    images: NDArray[np.uint8]
    """Pixels from 0 (black) to `full_scale`, `(n, channels, image_size, image_size)`."""
    labels: NDArray[np.int64]
    """Index into `classes`, `(n,)`."""
    classes: tuple[str, ...]
    full_scale: int
    """The pixel value of white."""
    given: Mapping[SplitName, NDArray[np.int64]]
    """Indices of the splits that the data brings along; empty where the task is to split."""
    ignored_files: int = 0
    """Files that lay among the images and are none."""


def digits(*, image_size: int, channels: int) -> ImageData:
    """Return scikit-learn's 1797 handwritten digits, 8 x 8 pixels of 17 shades of grey.

    Raises:
        UserError: Another size or number of channels is asked for.
    """
    if image_size != 8 or channels != 1:
        raise UserError(
            f"task.image_size {image_size} and task.channels {channels} do not fit the digits, "
            "which are 8 x 8 of 1 channel; set task.image_size: 8 and task.channels: 1"
        )
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("task.data digits needs scikit-learn; run pip install scikit-learn")
    # Its file, not its load_digits: that import takes two seconds of every command.
    table = np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz",
        delimiter=",",
        dtype=np.uint8,
    )  # (1797, 65): the pixels row by row, then the digit
    return ImageData(
        images=table[:, :-1].reshape(-1, 1, 8, 8),
        labels=table[:, -1].astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        full_scale=16,
        given={},
    )
