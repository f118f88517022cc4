"""Sampling that is uniform over size."""

from itertools import pairwise

import numpy as np
import pytest

from search_spaces import (
    DecoderSpace,
    SearchSpace,
    VisionTransformerSpace,
    sample_by_cost,
    sample_widely,
)

VISION = VisionTransformerSpace(
    image_size=8,
    patch_size=2,
    channels=1,
    num_classes=10,
    head_dim=16,
    embed=(32, 64, 96),
    depth=(2, 3, 4, 5, 6),
    heads=(1, 2, 4, 6),
    ffn=(32, 64, 128, 256),
)
TEXT = DecoderSpace(
    vocabulary=256,
    context=64,
    head_dim=16,
    group=2,
    embed=(32, 64, 128),
    depth=(1, 2, 4, 8),
    heads=(2, 4, 8),
    ffn=(64, 128, 512),
)


def macs(space):
    return lambda arch: float(space.cost(arch).macs)


@pytest.mark.parametrize(("space", "seed"), [(VISION, 0), (TEXT, 1)], ids=["vit", "decoder"])
def test_each_quarter_of_the_range_gets_its_share(space, seed):
    cost = macs(space)
    found = sample_by_cost(space, cost, 80, np.random.default_rng(seed))
    assert len(found) == len(set(found)) == 80
    assert all(arch in space for arch in found)
    low, high = cost(space.smallest), cost(space.largest)
    places = (np.array([cost(arch) for arch in found]) - low) / (high - low)
    share, _ = np.histogram(places, bins=4, range=(0, 1))
    assert share.sum() == 80
    assert share.min() >= 0.15 * 80
    assert share.max() <= 0.35 * 80


def test_uniform_genes_would_not_do():
    """The law above is worth something only where plain sampling breaks it."""
    cost = macs(TEXT)
    rng = np.random.default_rng(0)
    low, high = cost(TEXT.smallest), cost(TEXT.largest)
    places = [(cost(TEXT.sample(rng)) - low) / (high - low) for _ in range(200)]
    share, _ = np.histogram(places, bins=4, range=(0, 1))
    assert share.max() > 0.35 * 200


def test_what_is_sampled_at_one_size_varies_in_shape():
    cost = macs(VISION)
    found = sample_by_cost(VISION, cost, 60, np.random.default_rng(0))
    middle = sorted(found, key=cost)[20:40]
    assert len({arch["depth"] for arch in middle}) >= 2
    assert len({arch["embed"] for arch in middle}) >= 2
    layers = [layer for arch in middle for layer in VISION.subnet(arch).layers]
    assert {layer.heads for layer in layers} == {1, 2, 4, 6}
    assert {layer.ffn for layer in layers} == {32, 64, 128, 256}


def test_they_come_in_order_of_size():
    cost = macs(VISION)
    costs = [cost(arch) for arch in sample_by_cost(VISION, cost, 20, np.random.default_rng(0))]
    stratum = (cost(VISION.largest) - cost(VISION.smallest)) / 20
    assert all(later > earlier - 2 * stratum for earlier, later in pairwise(costs))


def test_a_function_of_the_seed():
    def draw(seed):
        return sample_by_cost(VISION, macs(VISION), 12, np.random.default_rng(seed))

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


@pytest.mark.parametrize("count", [1, 2, 7, 12, 13, 500])
def test_a_small_space_gives_all_it_has(count):
    space = SearchSpace({"depth": (1, 2), "a": (1, 2, 3), "b": (1, 2, 4)}, {"b": {"depth": (2,)}})
    assert space.size == 12
    found = sample_by_cost(
        space, lambda arch: float(sum(arch.values())), count, np.random.default_rng(0)
    )
    assert len(found) == len(set(found)) == min(count, 12)
    assert set(found) <= set(space)


def test_none_and_one():
    space = SearchSpace({"a": (1,)})
    rng = np.random.default_rng(0)
    assert sample_by_cost(space, lambda arch: 1.0, 0, rng) == []
    assert sample_by_cost(space, lambda arch: 1.0, 3, rng) == [space.smallest]


def test_a_cost_that_says_nothing():
    """All cost the same: any are fine, but distinct and not for ever."""
    found = sample_by_cost(VISION, lambda arch: 1.0, 40, np.random.default_rng(0))
    assert len(set(found)) == 40


def test_a_cost_is_asked_for_a_few_hundred_times_a_sample():
    calls = 0

    def cost(arch):
        nonlocal calls
        calls += 1
        return float(VISION.cost(arch).parameters)

    sample_by_cost(VISION, cost, 20, np.random.default_rng(0))
    assert calls < 20 * 300


def test_single_samples_are_uniform_over_size_too():
    """Training draws one at a time."""
    rng = np.random.default_rng(0)
    low, high = (VISION.cost(arch).parameters for arch in (VISION.smallest, VISION.largest))
    drawn = [
        sample_by_cost(VISION, lambda arch: VISION.cost(arch).parameters, 1, rng)[0]
        for _ in range(300)
    ]
    shares = [(VISION.cost(arch).parameters - low) / (high - low) for arch in drawn]
    counts, _ = np.histogram(shares, bins=4, range=(0, 1))
    assert counts.min() > 0.15 * 300
    assert counts.max() < 0.35 * 300


def test_a_wide_sample_holds_what_uniform_genes_would_not():
    found = sample_widely(TEXT, 400, np.random.default_rng(0))
    assert found[:2] == [TEXT.smallest, TEXT.largest]
    assert len(found) == len(set(found)) <= 402
    assert all(arch in TEXT for arch in found)
    sizes = np.array([macs(TEXT)(arch) for arch in found])
    rng = np.random.default_rng(0)
    uniform = np.array([macs(TEXT)(TEXT.sample(rng)) for _ in range(400)])
    half = macs(TEXT)(TEXT.largest) / 2
    assert (sizes > half).mean() > (uniform > half).mean()
    assert (sizes < half).mean() > 0.2
