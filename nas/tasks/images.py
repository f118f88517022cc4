"""Image classification: the digits built in, or a folder of images by class."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.augment import Augmentation
from nas.tasks.image_data import ImageData, digits
from nas.tasks.image_folder import read_folder
from nas.tasks.metrics import classification_metrics, correct_predictions, cross_entropies
from nas.tasks.parameters import at_least
from nas.tasks.partition import Indices, check_fractions, digest, part_of, stratified
from nas.tasks.streams import stream
from nas.tasks.task import SPLITS, SplitName
from search_spaces.errors import UserError


class ImageClassification:
    """Task of naming the class of an image.

    Images are normalised with the mean and standard deviation of the training images, channel by
    channel; whoever serves a model does the same, from `record["normalisation"]`. A training
    batch is a stretch of an endless sequence of random permutations of the training images.

    Attributes:
        num_classes: Number of classes.
        image_size: Side of the square images, pixels.
        channels: 1 (grey) or 3 (RGB).
        record: See `Task.record`.
    """

    kind = "image-classification"
    quality = "error"

    def __init__(
        self,
        *,
        data: str = "digits",
        image_size: int = 8,
        channels: int = 1,
        augment: Mapping[str, object] | Augmentation | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int = 256,
        split: Sequence[float] = (0.6, 0.2, 0.2),
        seed: int = 0,
        split_seed: int | None = None,
    ) -> None:
        """Read, split and normalise the data.

        Args:
            data: "digits", or a folder (see `read_folder`; write ./digits for one of that name).
            image_size: Side to which images are resized, pixels.
            channels: 1 for grey, 3 for RGB.
            augment: Fields of `Augmentation`; None takes its defaults.
            batch_size: Images in a training batch.
            evaluation_batch_size: Images in a batch of `split`; fixed, since results may
                depend on it in their last bits.
            split: Fractions of train, validation and test. Splits that the folder brings
                along are kept, and only the missing ones drawn, from its training images.
            seed: Seed of order and augmentation.
            split_seed: Seed of the split; None is `seed`.

        Raises:
            UserError: Parameters or data that cannot be used.
        """
        self.batch_size = at_least(1, "batch_size", batch_size)
        self.image_size = at_least(1, "image_size", image_size)
        self.evaluation_batch_size = at_least(1, "evaluation_batch_size", evaluation_batch_size)
        self._seed = at_least(0, "seed", seed)
        split_seed = seed if split_seed is None else at_least(0, "split_seed", split_seed)
        if channels not in (1, 3):
            raise UserError(f"task.channels {channels} is not 1 (grey) or 3 (RGB); choose one")
        self.channels = channels
        fractions = check_fractions(split)
        self.augmentation = (
            augment
            if isinstance(augment, Augmentation)
            else Augmentation.from_mapping(augment or {})
        )
        loaded = (
            digits(image_size=image_size, channels=channels)
            if data == "digits"
            else read_folder(Path(data).expanduser(), image_size=image_size, channels=channels)
        )
        self.num_classes = len(loaded.classes)
        self._full_scale = loaded.full_scale
        self._images = torch.from_numpy(loaded.images)
        self._labels = torch.from_numpy(loaded.labels)
        self._indices = _partition(loaded, fractions, seed=split_seed)
        self._orders: dict[int, Indices] = {}
        mean, std = _statistics(loaded, self._indices["train"])
        self._mean = torch.tensor(mean, dtype=torch.float32)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32)[:, None, None]
        self.record: dict[str, Any] = {
            "schema": 1,
            "kind": self.kind,
            "data": data,
            "seed": split_seed,
            "fractions": fractions,
            "given_by_data": list(loaded.given),
            "counts": {name: len(part) for name, part in self._indices.items()},
            "counts_by_class": {
                name: np.bincount(loaded.labels[part], minlength=self.num_classes).tolist()
                for name, part in self._indices.items()
            },
            "images_also_in_train": {
                name: _shared(loaded.images, self._indices["train"], self._indices[name])
                for name in SPLITS[1:]
            },
            "ignored_files": loaded.ignored_files,
            "classes": list(loaded.classes),
            "sha256": digest(loaded.images, loaded.labels),
            "index_sha256": {name: digest(part) for name, part in self._indices.items()},
            "image_size": image_size,
            "channels": channels,
            "normalisation": {
                "formula": "(pixel / full_scale - mean) / std, channel by channel",
                "full_scale": loaded.full_scale,
                "mean": mean,
                "std": std,
            },
        }

    @property
    def tokenizer_json(self) -> None:
        """Images have none."""
        return None

    @property
    def steps_per_epoch(self) -> int:
        """Training steps that draw every training image at least once."""
        return -(-len(self._indices["train"]) // self.batch_size)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the augmented, normalised batch of `step` (see `Task.batch`).

        Returns:
            Images, float32 `(batch_size, channels, image_size, image_size)`; labels, int64
            `(batch_size,)`.
        """
        train = self._indices["train"]
        epochs, places = np.divmod(
            np.arange(step * self.batch_size, (step + 1) * self.batch_size), len(train)
        )
        chosen = np.empty(self.batch_size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            chosen[here] = train[self._order(epoch)[places[here]]]
        rng = stream(self._seed, "augment", step)
        # Resampled before normalisation, so that the fill at the border is black, not the mean.
        images = self.augmentation.warp(self._images[chosen].float(), rng)
        return self.augmentation.cut(self._normalise(images), rng), self._labels[chosen]

    def split(self, name: SplitName, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over a split in fixed order (see `Task.split`); the last batch may be smaller."""
        indices = part_of(self._indices[name], share, name)
        for start in range(0, len(indices), self.evaluation_batch_size):
            chosen = indices[start : start + self.evaluation_batch_size]
            yield self._normalise(self._images[chosen].float()), self._labels[chosen]

    def only(self, *splits: SplitName) -> Self:
        """Hold the images of these splits alone (see `Task.only`)."""
        part = copy.copy(self)
        kept = {name: self._indices[name] for name in splits}
        chosen = np.concatenate(list(kept.values()))
        ends = np.cumsum([len(indices) for indices in kept.values()])
        part._images, part._labels = self._images[chosen], self._labels[chosen]
        part._indices = {
            name: np.arange(end - len(indices), end, dtype=np.int64)
            for (name, indices), end in zip(kept.items(), ends, strict=True)
        }
        part._orders = {}
        return part

    @torch.no_grad()
    def metrics(
        self,
        forward: Callable[[Tensor], Tensor | NDArray[Any]],
        split: SplitName,
        share: float = 1.0,
    ) -> dict[str, float]:
        """Return accuracy, error and cross_entropy (nats), `_se` of each, and n images."""
        nats, correct = [], []
        for images, labels in self.split(split, share):
            logits = forward(images)
            nats.append(cross_entropies(logits, labels))
            correct.append(correct_predictions(logits, labels))
        return classification_metrics(np.concatenate(nats), np.concatenate(correct))

    def _normalise(self, pixels: Tensor) -> Tensor:
        return (pixels / self._full_scale - self._mean) / self._std

    def _order(self, epoch: int) -> Indices:
        if epoch not in self._orders:
            # A batch touches two epochs as a rule, so two are worth keeping.
            self._orders = {key: self._orders[key] for key in list(self._orders)[-1:]}
            count = len(self._indices["train"])
            self._orders[epoch] = stream(self._seed, "order", epoch).permutation(count)
        return self._orders[epoch]


def _partition(
    data: ImageData, fractions: Mapping[SplitName, float], *, seed: int
) -> dict[SplitName, Indices]:
    """Split what the data has not split itself."""
    given = dict(data.given)
    pool = given.pop("train", np.arange(len(data.labels)))
    shares = {name: share for name, share in fractions.items() if name not in given}
    drawn = stratified(data.labels, pool, shares, classes=data.classes, seed=seed)
    return {name: given[name] if name in given else drawn[name] for name in SPLITS}


def _statistics(data: ImageData, train: Indices) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of the training pixels per channel, white being 1."""
    means, stds = [], []
    for channel in range(data.images.shape[1]):
        # From the histogram: exact in any order, and no float copy of the images.
        counts = np.bincount(data.images[train, channel].reshape(-1), minlength=256)
        values = np.arange(len(counts)) / data.full_scale
        mean = float(counts @ values / counts.sum())
        means.append(mean)
        std = float(np.sqrt(counts @ np.square(values - mean) / counts.sum()))
        stds.append(std or 1.0)  # a constant channel carries nothing; keep it finite
    return means, stds


def _shared(images: NDArray[np.uint8], train: Indices, others: Indices) -> int:
    """Count the images of a split that are, pixel by pixel, in the training split too."""
    known = {images[index].tobytes() for index in train}
    return sum(images[index].tobytes() in known for index in others)
