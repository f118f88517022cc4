"""Image metrics: as scikit-learn and a slow reference give them, whatever the model returns."""

import numpy as np
import pytest
import torch

from nas.tasks.images import ImageClassification


@pytest.fixture(scope="module")
def digits() -> ImageClassification:
    torch.set_num_threads(1)
    return ImageClassification()


def test_metrics_agree_with_sklearn_and_a_slow_reference(digits: ImageClassification) -> None:
    from sklearn.metrics import accuracy_score, log_loss

    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) / 10
    metrics = digits.metrics(lambda images: images.flatten(1) @ weights, "test")
    batches = list(digits.split("test"))
    logits = torch.cat([images.flatten(1) @ weights for images, _ in batches]).double()
    labels = torch.cat([labels for _, labels in batches]).numpy()
    probabilities = torch.softmax(logits, 1).numpy()
    assert metrics["n"] == len(labels) == digits.record["counts"]["test"]
    assert metrics["accuracy"] == accuracy_score(labels, probabilities.argmax(1))
    assert metrics["error"] == 1 - metrics["accuracy"]
    assert metrics["cross_entropy"] == pytest.approx(log_loss(labels, probabilities), rel=1e-6)
    each = [-np.log(probabilities[i, label]) for i, label in enumerate(labels)]
    assert metrics["cross_entropy_se"] == pytest.approx(
        np.std(each, ddof=1) / len(each) ** 0.5, rel=1e-6
    )
    p = metrics["accuracy"]
    assert metrics["accuracy_se"] == metrics["error_se"] == (p * (1 - p) / len(labels)) ** 0.5


def test_metrics_take_arrays_and_are_bit_reproducible(digits: ImageClassification) -> None:
    weights = torch.randn(64, 10)
    tensor = digits.metrics(lambda images: images.flatten(1) @ weights, "validation")

    def runtime(images: torch.Tensor) -> np.ndarray:
        logits = (images.flatten(1) @ weights).numpy()
        logits.flags.writeable = False
        return logits

    assert digits.metrics(runtime, "validation") == tensor


def test_metrics_track_no_gradients_and_count_nan_as_wrong(digits: ImageClassification) -> None:
    layer = torch.nn.Linear(64, 10)

    def forward(images: torch.Tensor) -> torch.Tensor:
        logits = layer(images.flatten(1))
        assert not logits.requires_grad
        return logits * float("nan")

    metrics = digits.metrics(forward, "test")
    assert metrics["accuracy"] == 0
    assert np.isnan(metrics["cross_entropy"])


def test_logits_of_a_wrong_shape_are_refused(digits: ImageClassification) -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(256, 8, 10\) do not fit"):
        digits.metrics(lambda images: torch.zeros(len(images), 8, 10), "test")
