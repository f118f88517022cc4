"""What a training sums up between two entries of its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supernet.sandwich import StepResult


@dataclass
class LogWindow:
    """Sums since the last entry of the log; kept in the checkpoint, so that no step is lost."""

    started_s: float = 0.0
    """Time in training at the last entry."""
    steps: int = 0
    samples: int = 0
    largest: float = 0.0
    smallest: float = 0.0
    random: float = 0.0
    others: int = 0
    """Subnets that `random` sums."""

    def add(self, result: StepResult, samples: int) -> None:
        """Take in a step, whose batch had so many samples."""
        self.steps += 1
        self.samples += samples
        self.largest += result.losses[0]
        self.smallest += result.losses[1]
        self.random += sum(result.losses[2:])
        self.others += len(result.losses[2:])

    def entry(
        self, step: int, all_steps: int, elapsed_s: float, learning_rate: float
    ) -> dict[str, Any]:
        """The entry of the log after some steps: see `Trainer.on_log`."""
        seconds = max(elapsed_s - self.started_s, 1e-9)
        return {
            "step": step,
            "loss_largest": self.largest / self.steps,
            "loss_smallest": self.smallest / self.steps,
            "loss_random": self.random / self.others if self.others else None,
            "learning_rate": learning_rate,
            "samples_per_s": self.samples / seconds,
            "elapsed_s": elapsed_s,
            "remaining_s": (all_steps - step) * seconds / self.steps,
        }
