"""Splitting data once into train, validation and test: by class for images, by size for texts."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.tasks.streams import stream
from nas.tasks.task import SPLITS, SplitName
from search_spaces.errors import UserError

Indices = NDArray[np.int64]


def check_fractions(split: Sequence[float]) -> dict[SplitName, float]:
    """Name the three fractions of `split`.

    Raises:
        UserError: Not three, one not above 0, or a sum that is not 1 (to 1e-6).
    """
    fractions = tuple(split)
    next_step = "give three fractions above 0 that sum to 1, such as [0.6, 0.2, 0.2]"
    if len(fractions) != 3:
        raise UserError(f"task.split has {len(fractions)} fractions, not 3; {next_step}")
    for name, fraction in zip(SPLITS, fractions, strict=True):
        if not 0 < fraction < 1:
            raise UserError(
                f"task.split gives {fraction:g} to {name}, which is not between 0 and 1; "
                f"{next_step}"
            )
    if abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"task.split sums to {sum(fractions):g}, not 1; {next_step}")
    return dict(zip(SPLITS, fractions, strict=True))


def apportion(count: int, shares: Sequence[float]) -> list[int]:
    """Divide `count` by `shares` (largest remainder), at least one to each where `count` allows.

    Args:
        count: What to divide, at least `len(shares)`.
        shares: Above 0; need not sum to 1.
    """
    exact = [share / sum(shares) * count for share in shares]
    parts = [max(1, int(part)) for part in exact]
    while sum(parts) < count:
        parts[max(range(len(parts)), key=lambda i: exact[i] - parts[i])] += 1
    while sum(parts) > count:
        parts[max(range(len(parts)), key=lambda i: parts[i])] -= 1
    return parts


def stratified(
    labels: NDArray[np.int64],
    pool: Indices,
    shares: Mapping[SplitName, float],
    *,
    classes: Sequence[str],
    seed: int,
) -> dict[SplitName, Indices]:
    """Split the images of `pool` so that each class is divided by the same `shares`.

    Args:
        labels: Class of every image, `(n,)`.
        pool: Indices of the images to split, `(k,)`.
        shares: Share of each split, above 0; need not sum to 1.
        classes: Class names, for messages.
        seed: Seed of the split.

    Returns:
        Sorted indices of each split; disjoint, and together the pool.

    Raises:
        UserError: A class has fewer images than there are splits.
    """
    rng = stream(seed, "split")
    parts: dict[SplitName, list[Indices]] = {name: [] for name in shares}
    for label, class_name in enumerate(classes):
        members = rng.permutation(pool[labels[pool] == label])
        if len(members) < len(shares):
            raise UserError(
                f"class {class_name!r} has {len(members)} images to split, but "
                f"{', '.join(shares)} need {len(shares)}; add images or remove the class"
            )
        start = 0
        for name, count in zip(shares, apportion(len(members), list(shares.values())), strict=True):
            parts[name].append(members[start : start + count])
            start += count
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def by_size(
    sizes: Sequence[int], fractions: Mapping[SplitName, float], *, seed: int
) -> dict[SplitName, list[int]]:
    """Deal whole documents to the splits in random order, each to the split that lacks most.

    Args:
        sizes: Bytes of every document.
        fractions: Fraction of the bytes that each split should get.
        seed: Seed of the order.

    Returns:
        Indices of the documents of each split, in the order dealt. A split may be empty.
    """
    lacking = {name: fraction * sum(sizes) for name, fraction in fractions.items()}
    parts: dict[SplitName, list[int]] = {name: [] for name in fractions}
    for index in stream(seed, "split").permutation(len(sizes)):
        name = max(lacking, key=lambda name: lacking[name])
        parts[name].append(int(index))
        lacking[name] -= sizes[index]
    return parts


def part_of(samples: Indices, share: float, split: SplitName) -> Indices:
    """Take a share of a split's samples, evenly spread; all of them for 1.

    Raises:
        UserError: These are fewer than two, of which no spread is known.
    """
    count = round(share * len(samples))
    if count < min(2, len(samples)):
        raise UserError(
            f"{share:g} of the {len(samples)} samples of the {split} split are {count}, fewer than "
            "2; raise search.fidelities, or leave it out"
        )
    return samples[np.arange(count, dtype=np.int64) * len(samples) // count]


def digest(*arrays: NDArray[np.generic]) -> str:
    """Return the sha256 of shapes, types and contents, as 64 hex digits."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
