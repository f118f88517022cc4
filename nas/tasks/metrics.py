"""Metrics with standard errors, accumulated in float64."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 19  # a chunk stays in the cache: four times faster at 8192 classes

Logits = Tensor | NDArray[Any]


def cross_entropies(logits: Logits, targets: Tensor) -> NDArray[Any]:
    """Return the cross-entropy of each prediction.

    Exponentials are taken in the type of the logits (at least float32) below the largest
    logit, and summed in float64: exact to 1e-7 in float32.

    Args:
        logits: `(*shape, classes)`, any floating type.
        targets: int64, `(*shape,)`.

    Returns:
        Nats, float64, `(*shape,)`; not finite where the logits are not.

    Raises:
        ValueError: The shapes do not belong together.
    """
    flat, wanted = _flat(logits, targets)
    rows = max(1, _CHUNK_ELEMENTS // flat.shape[-1])
    nats = []
    for chunk, target in zip(torch.split(flat, rows), torch.split(wanted, rows), strict=True):
        top = chunk.amax(dim=-1, keepdim=True)
        total = (chunk - top).exp_().sum(dim=-1, keepdim=True, dtype=torch.float64)
        gap = top.double() - chunk.gather(-1, target).double()
        nats.append(total.log_() + gap)
    return torch.cat(nats).cpu().numpy().reshape(tuple(targets.shape))


def correct_predictions(logits: Logits, targets: Tensor) -> NDArray[Any]:
    """Return whether the largest logit is the target's (the first of equals counts).

    Args:
        logits: `(*shape, classes)`, any floating type.
        targets: int64, `(*shape,)`.

    Returns:
        bool, `(*shape,)`; False where the largest logit is not finite.

    Raises:
        ValueError: The shapes do not belong together.
    """
    flat, wanted = _flat(logits, targets)
    top, found = flat.max(dim=-1, keepdim=True)
    correct = (found == wanted) & top.isfinite()
    return correct.cpu().numpy().reshape(tuple(targets.shape))


def _flat(logits: Logits, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits `(n, classes)`, at least float32, and targets `(n, 1)` beside them."""
    if not isinstance(logits, Tensor):
        logits = torch.from_numpy(np.require(logits, requirements=["C", "W"]))
    if logits.ndim != targets.ndim + 1 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit targets of shape "
            f"{tuple(targets.shape)}; the model must give (*targets.shape, classes)"
        )
    flat = logits.detach().reshape(-1, logits.shape[-1])
    if flat.dtype != torch.float64:
        flat = flat.float()
    return flat, targets.reshape(-1, 1).to(flat.device)


def classification_metrics(nats: NDArray[Any], correct: NDArray[Any]) -> dict[str, float]:
    """Return accuracy, error and mean cross-entropy of `n` predictions.

    Standard errors: sqrt(p (1 - p) / n) of a proportion p, and the sample standard deviation over
    sqrt(n) of the cross-entropy.

    Args:
        nats: Cross-entropy of each prediction, `(n,)`, n >= 2.
        correct: Whether each prediction is right, `(n,)`.
    """
    n = len(nats)
    accuracy = int(correct.sum()) / n
    accuracy_se = math.sqrt(accuracy * (1 - accuracy) / n)
    return {
        "accuracy": accuracy,
        "accuracy_se": accuracy_se,
        "error": 1 - accuracy,
        "error_se": accuracy_se,
        "cross_entropy": float(nats.mean()),
        "cross_entropy_se": float(nats.std(ddof=1)) / math.sqrt(n),
        "n": n,
    }


def language_metrics(nats: NDArray[Any], lengths: NDArray[Any]) -> dict[str, float]:
    """Return cross-entropy (nats per token), bits per byte and perplexity of a text.

    Standard errors are taken over windows, since the tokens of a window depend on each other:
    with w windows, that of the cross-entropy is the sample standard deviation of the windows' means
    over sqrt(w); that of bits per byte, a ratio of sums, is the same of the residuals
    nats - ratio * bytes, over the mean bytes of a window (the delta method); that of the
    perplexity is perplexity times that of the cross-entropy (the delta method again). What
    windows of one file share is left out, so they are a little too small.

    Args:
        nats: Cross-entropy of each predicted token, `(w, context)`, w >= 2.
        lengths: Bytes of each predicted token, `(w, context)`.
    """
    windows, context = nats.shape
    sums = nats.sum(axis=1)
    sizes = lengths.sum(axis=1).astype(np.float64)
    cross_entropy = float(sums.sum()) / nats.size
    cross_entropy_se = float(sums.std(ddof=1)) / context / math.sqrt(windows)
    ratio = float(sums.sum() / sizes.sum())
    spread = math.sqrt(float(np.square(sums - ratio * sizes).sum()) / (windows - 1) / windows)
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(cross_entropy))
    return {
        "cross_entropy": cross_entropy,
        "cross_entropy_se": cross_entropy_se,
        "bits_per_byte": ratio / math.log(2),
        "bits_per_byte_se": spread / float(sizes.mean()) / math.log(2),
        "perplexity": perplexity,
        "perplexity_se": perplexity * cross_entropy_se,
        "n": nats.size,
    }
