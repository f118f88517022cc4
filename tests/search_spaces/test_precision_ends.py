"""Schemes of stem and head: genes of spaces that ask for them, and of no others."""

import numpy as np
import pytest

from predictors.blocks import BlockCounts
from predictors.policies import slow_blocks
from predictors.proposals import propose
from search_spaces import DecoderSpace, UserError, VisionTransformerSpace, space_from_json
from search_spaces.schemes import ENDS, FULL, SCHEMES
from tests.search_spaces.test_transformer_spaces import TEXT, VISION

CHOICES = ("fp32", "w8", "w8a8", "w4")
SPACES = {
    "vit": VisionTransformerSpace(**VISION, precision=CHOICES, precision_ends=("head", "stem")),
    "decoder": DecoderSpace(**TEXT, precision=CHOICES, precision_ends=ENDS),
    "head": DecoderSpace(**TEXT, precision=CHOICES, precision_ends=("head",)),
}


def without(space):
    return space_from_json({k: v for k, v in space.to_json().items() if k != "precision_ends"})


@pytest.mark.parametrize("name", SPACES)
def test_stem_and_head_are_genes_that_always_count(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    more = set(space.names) - set(without(space).names)
    assert more == {f"precision.{part}" for part in space.ends}
    assert set(space.choices["precision.head"]) == (
        {"fp32", "w8", "w4"} if name == "vit" else set(CHOICES)
    )
    for _ in range(30):
        arch = space.sample(rng)
        assert more <= set(arch)
        assert space.decode(space.encode(arch)) == arch
        fixed = space.blocks(arch)[0]
        chosen = {part: arch[f"precision.{part}"] for part in space.ends}
        assert dict(fixed.precision) == {p: s for p, s in chosen.items() if s != FULL}
        assert set(space.blocks(arch)) <= set(space.all_blocks())
        assert space.schemes(arch) >= {s for s in chosen.values() if s != FULL}
        genes = space.policy_genes(arch)
        assert len(genes) == len(space.blocks(arch))
        assert {n for some in genes for n in some.values()} == {n for n in arch if n[:4] == "prec"}
    assert space_from_json(space.to_json()).digest == space.digest != without(space).digest
    assert len(set(space.all_blocks())) == len(space.all_blocks())


def test_spaces_that_do_not_ask_are_what_they_were():
    for base in (
        VisionTransformerSpace(**VISION, precision=CHOICES, precision_ends=()),
        VisionTransformerSpace(**VISION, precision_ends=ENDS),  # without a choice, none of these
    ):
        assert "precision_ends" not in base.to_json()
        assert not {"precision.stem", "precision.head"} & set(base.names)


@pytest.mark.parametrize("name", SPACES)
def test_bytes_and_counts_are_those_of_the_schemes(name):
    space, rng = SPACES[name], np.random.default_rng(1)
    sample = [space.sample(rng) for _ in range(20)]
    counts = BlockCounts(space)
    for arch, row in zip(sample, counts(sample), strict=True):
        for block in space.blocks(arch):
            assert row[counts.blocks.index(block)] == space.blocks(arch).count(block)
        fixed = space.blocks(arch)[0]
        full = fixed.with_policy(())
        saved = sum(
            4 * outputs * inputs - SCHEMES[scheme].weight_bytes(outputs, inputs)
            for part, scheme in fixed.precision
            for outputs, inputs in space.linears(fixed)[part]
        )
        load = space.default_workload
        assert (
            space.block_cost(full, load).size_bytes - space.block_cost(fixed, load).size_bytes
            == saved
        )


def test_one_scheme_everywhere_is_the_next_finer_where_it_cannot_be():
    for name, head in (("vit", "w8"), ("decoder", "w8a8")):
        arch = SPACES[name].with_scheme(SPACES[name].largest, "w8a8")
        assert (arch["precision.stem"], arch["precision.head"]) == ("w8", head)
        assert arch["precision.qkv.0"] == "w8a8"
    full = SPACES["vit"].uniform(3)
    assert all(not SPACES["vit"].schemes(arch) for arch in full)


def test_a_head_that_does_not_pay_is_left_out_and_proposals_keep_to_it():
    space = SPACES["decoder"]
    restricted = space.restricted(slow_blocks(space, [lambda block: 1.0]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert restricted.sample(rng)["precision.head"] != "w8a8"
    losses = {
        name: {scheme: float(place) for place, scheme in enumerate(space.choices[name][::-1])}
        for name in space.names
        if name.startswith("precision.")
    }
    load = space.default_workload
    found = propose(
        restricted,
        restricted.uniform(2)[-1],
        losses,
        [lambda block: space.block_cost(block, load).size_bytes],
        4,
    )
    assert len({arch["precision.stem"] for arch in found}) > 1
    for arch in found:
        assert "w8a8" not in space.schemes(arch)


def test_what_is_neither_is_refused():
    with pytest.raises(UserError, match=r"space\.precision_ends 'body' is not one of stem, head"):
        VisionTransformerSpace(**VISION, precision=CHOICES, precision_ends=("body",))
