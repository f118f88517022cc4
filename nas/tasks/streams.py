"""Random streams: one for every purpose and position, so that none depends on another's use."""

from typing import Literal

import numpy as np

Purpose = Literal["split", "order", "augment", "crops"]
_CODES: dict[Purpose, int] = {"split": 1, "order": 2, "augment": 3, "crops": 4}


def stream(seed: int, purpose: Purpose, position: int = 0) -> np.random.Generator:
    """Return the generator of (`seed`, `purpose`, `position`), always in its initial state.

    Args:
        seed: At least 0.
        purpose: What the numbers are for.
        position: Epoch or step, at least 0.
    """
    return np.random.default_rng([seed, _CODES[purpose], position])
