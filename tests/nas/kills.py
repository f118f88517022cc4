"""Searches that are killed at random moments and started again, until one comes to its end."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

Result = TypeVar("Result")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def resumed(
    resume: Callable[[int | None], Result], count: int, most: int, rng: np.random.Generator
) -> Result:
    """What the last of several starts gives.

    Args:
        resume: Goes on with what is stored, and raises `Killed` before evaluation number `n` of
            this call; None lets it end.
        count: Evaluations of the whole search.
        most: Evaluations of one start, at most.
        rng: Chooses the moments.
    """
    left = count
    while left > 0:
        after = int(rng.integers(0, most))
        if after < left:
            with pytest.raises(Killed):
                resume(after)
        left -= max(after, 1)
    return resume(None)
