"""A model that has learned nothing is told from one that has."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from nas.tasks import build_task
from nas.tasks.guessing import guessing, no_better_than_guessing


@pytest.fixture(scope="module")
def digits():
    return build_task("image-classification", data="digits")


@pytest.fixture(scope="module")
def text():
    return build_task(
        "language-modelling", data="stdlib", max_bytes=60_000, context=32, evaluation_tokens=4096
    )


def test_guessing_names_the_most_frequent_class(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("cat", 40), ("dog", 20)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    task = build_task("image-classification", data=str(tmp_path), image_size=4)
    found = guessing(task)
    assert found["error"] == pytest.approx(1 / 3, abs=0.02)
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert found["cross_entropy"] == pytest.approx(entropy, abs=0.02)


def test_guessing_bytes_takes_the_entropy_of_their_shares(text):
    counts = np.zeros(256)
    for _, targets in text.split("train"):
        counts += np.bincount(targets.reshape(-1).numpy(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    # Bytes that do not occur count as half a sample.
    unseen = np.log2(np.maximum(counts, 0.5).sum() / counts.sum())
    entropy = -(shares * np.log2(shares)).sum()
    assert guessing(text, "train")["bits_per_byte"] == pytest.approx(entropy + unseen, rel=1e-4)
    assert 3 < guessing(text)["bits_per_byte"] < 6


@pytest.mark.parametrize("name", ["digits", "text"])
def test_what_has_learned_nothing_is_told(name, request):
    task = request.getfixturevalue(name)
    words = {"digits": "error", "text": "bits per byte"}[name]

    def constant(inputs):
        shape = inputs.shape if name == "text" else inputs.shape[:1]
        return torch.zeros(*shape, task.num_classes)

    warning = no_better_than_guessing(task, "uniform-4", task.metrics(constant, "validation"))
    assert warning.startswith(f"SUPERNET NOT SANE: uniform-4 has {words} ")
    assert warning.endswith("before trusting a search")
    better = {**guessing(task)}
    better[task.quality] /= 2
    assert no_better_than_guessing(task, "uniform-4", better) is None
