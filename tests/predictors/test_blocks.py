"""Counting blocks all at once is counting them one by one."""

from collections import Counter

import numpy as np
import pytest

from predictors.blocks import BlockCounts
from search_spaces import DecoderSpace, UserError, VisionTransformerSpace

VIT = VisionTransformerSpace(
    image_size=8,
    patch_size=2,
    channels=1,
    num_classes=10,
    head_dim=16,
    embed=(32, 64),
    depth=(1, 3, 4),
    heads=(1, 2, 4),
    ffn=(32, 256),
    drop_order=(2, 0, 3, 1),
)
TEXT = DecoderSpace(
    vocabulary=9,
    context=16,
    head_dim=4,
    embed=(8, 16, 24),
    depth=(2, 5),
    heads=(2, 4),
    ffn=(8, 12, 16),
    group=2,
)


@pytest.mark.parametrize("space", [VIT, TEXT], ids=lambda space: space.family)
def test_counts(space):
    counts = BlockCounts(space)
    rng = np.random.default_rng(0)
    architectures = [space.smallest, space.largest, *(space.sample(rng) for _ in range(200))]
    for arch, row in zip(architectures, counts(architectures), strict=True):
        found = {block: n for block, n in zip(counts.blocks, row.tolist(), strict=True) if n}
        assert found == Counter(space.blocks(arch))
    assert counts([]).shape == (0, len(space.all_blocks()))


def test_architectures_of_another_space():
    with pytest.raises(UserError, match="is not one of"):
        BlockCounts(VIT)([TEXT.largest])
