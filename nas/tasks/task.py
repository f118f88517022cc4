"""What every task offers to training, search and export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Forward = Callable[[Tensor], Tensor | NDArray[Any]]

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Task(Protocol):
    """Data that was split once, the batches that training sees, and the metrics of a model.

    Training sees `train` only, search `validation`, the report `test`. All tensors are on the CPU.
    """

    @property
    def kind(self) -> str:
        """Name in `nas.tasks.TASKS`."""

    @property
    def quality(self) -> str:
        """The metric that is minimised unless the user asks otherwise: error, bits_per_byte."""

    @property
    def batch_size(self) -> int:
        """Samples in a training batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps after which as many samples were drawn as `train` holds (rounded up)."""

    @property
    def num_classes(self) -> int:
        """Size of the last axis of the logits; the vocabulary of a language model."""

    @property
    def record(self) -> dict[str, Any]:
        """What was split how, as JSON: seed, fractions, counts, digests, how to feed the model."""

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer that an exported model needs, as `tokenizers` opens it; None without."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the training batch of `step`: a pure function of the seed and the step.

        So the position in the data is the step alone, and a resumed run sees what it would have.

        Returns:
            Inputs `(batch_size, ...)` and int64 targets, `(batch_size, ...)`; both fresh tensors.
        """

    def split(self, name: SplitName, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over a split in fixed order and fixed batches, without augmentation.

        Args:
            name: Name of the split.
            share: Share of its samples to take, evenly spread, above 0; always the same ones.

        Raises:
            UserError: These are fewer than two samples.
        """

    def only(self, *splits: SplitName) -> Self:
        """A task that holds some of the splits alone, to be judged on elsewhere.

        Their samples, batches and metrics are the same. Without `train` it has no `batch`.
        """

    def metrics(self, forward: Forward, split: SplitName, share: float = 1.0) -> dict[str, float]:
        """Judge a model on a split.

        Args:
            forward: Maps an input batch of `split` to logits `(*targets.shape, num_classes)`, as a
                tensor or an array: a runtime's outputs are judged by the same code.
            split: Name of the split.
            share: Share of its samples to judge on, see `split`.

        Returns:
            Metrics, their standard errors as `<metric>_se`, and `n`, the number of predictions.
            Logits that are not finite give a cross-entropy that is not.
        """
