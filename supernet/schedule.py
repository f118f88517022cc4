"""Learning rate as a function of the step."""

import math


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, learning_rate: float) -> float:
    """Learning rate of one step: linear warm-up, then a cosine to zero (arXiv:1608.03983).

    Args:
        step: Index of the step, `0 <= step < steps`.
        steps: Length of the training.
        warmup_steps: Steps until the peak is reached; 0 starts at the peak.
        learning_rate: The peak.

    Returns:
        A rate in `(0, learning_rate]`; the step after the last would have 0.
    """
    if step < warmup_steps:
        return learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
