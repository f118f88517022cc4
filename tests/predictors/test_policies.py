"""Schemes that do not pay are left out, and proposed policies are the best within their bounds."""

from itertools import product

import numpy as np
import pytest

from predictors.blocks import BlockCounts
from predictors.policies import slow_blocks, without_small_gains
from predictors.proposals import propose
from search_spaces.schemes import FULL, PARTS
from tests.search_spaces.policy_spaces import FEW, policy_space

SPACE = policy_space("vit", FEW)


def latency(block):
    """An 8-bit product costs 40, and saves 1 for each input and output."""
    block = block.timed
    widths = {part: sum(map(sum, shapes)) for part, shapes in SPACE.linears(block).items()}
    saved = sum(widths[part] - 40 for part, _ in block.precision)
    return 100.0 - saved


@pytest.mark.parametrize("space", [SPACE, policy_space("decoder")])
def test_blocks_are_counted_with_their_schemes(space):
    counts, rng = BlockCounts(space), np.random.default_rng(0)
    sample = [space.sample(rng) for _ in range(40)]
    for arch, row in zip(sample, counts(sample), strict=True):
        assert row.sum() == len(space.blocks(arch))
        for block in space.blocks(arch):
            assert row[counts.blocks.index(block)] == space.blocks(arch).count(block)


def test_what_does_not_pay_is_left_out():
    instead = slow_blocks(SPACE, [latency])
    assert 0 < len(instead) < len(SPACE.all_blocks())
    for block in SPACE.all_blocks():
        found = instead.get(block, block)
        widths = {part: sum(map(sum, shapes)) for part, shapes in SPACE.linears(block).items()}
        expected = {
            # w8 is the next finer one, and costs no time
            part: "w8" if name == "w8a8" and widths[part] <= 40 else name
            for part, name in block.precision
        }
        assert dict(found.precision) == expected
        assert (found.kind, found.widths) == (block.kind, block.widths)
        assert found not in instead


def test_under_every_workload():
    faster, slower = latency, lambda block: 2000.0 - latency(block)
    instead = slow_blocks(SPACE, [faster, slower])
    for block in SPACE.all_blocks():
        assert "w8a8" not in dict(instead.get(block, block).precision).values()


def test_parts_that_pay_only_beside_others():
    """The first 8-bit layer of a block costs 10 %, and each further one gives back 5 %."""

    def late(block):
        count = sum(name == "w8a8" for _, name in block.timed.precision)
        return 100.0 + (15.0 - 5.0 * count if count else 0.0)

    instead = slow_blocks(SPACE, [late])
    for block in SPACE.all_blocks():
        assert "w8a8" not in dict(instead.get(block, block).precision).values()


def test_a_network_that_gains_little_has_none():
    def saving(share):
        return lambda b: 100.0 - share * sum(name == "w8a8" for _, name in b.timed.precision)

    slight, much, loss = saving(1.0), saving(30.0), saving(-0.1)
    plain = SPACE.with_scheme(SPACE.largest, FULL)
    everywhere = SPACE.with_scheme(plain, "w8a8")
    some = SPACE.architecture({**plain, "precision.ffn_in.0": "w8a8", "precision.qkv.0": "w8"})
    stored = SPACE.architecture({**some, "precision.ffn_in.0": "w8"})
    for latencies, gain in (
        ([slight], False),
        ([slight, much], True),
        ([loss, much], False),
    ):
        space = SPACE.restricted({}, without_small_gains(SPACE, latencies))
        for arch, instead in ((some, stored), (everywhere, SPACE.with_scheme(plain, "w8"))):
            kept = arch if gain else instead
            assert space.decode(SPACE.encode(arch)) == kept
            assert space.decode_all([SPACE.encode(arch)]) == [kept]
            assert (arch in space) == gain
            assert kept in space
        assert plain in space


def test_proposals_are_the_best_within_their_bounds():
    space = policy_space("vit", FEW, depth=(1,))
    arch = space.with_scheme(space.largest, FULL)
    rng = np.random.default_rng(0)
    losses = {
        f"precision.{part}.0": {"fp32": 0.0, "w8": rng.random(), "w8a8": 1 + rng.random()}
        for part in PARTS
    }
    sizes = {arch: space.cost(arch).size_bytes for arch in policies(space, arch)}
    times = {arch: sum(map(latency, space.blocks(arch)[1:])) for arch in sizes}
    found = propose(
        space, arch, losses, [latency, lambda b: space.block_cost(b, WORK).size_bytes], 4
    )
    assert 2 <= len(found) <= 4
    for one in found:
        loss = total(losses, one)
        within = [
            other for other in sizes if sizes[other] <= sizes[one] and times[other] <= times[one]
        ]
        assert loss == pytest.approx(min(total(losses, other) for other in within))
        assert one in space
        assert {k: v for k, v in one.items() if k[:4] != "prec"} == {
            k: v for k, v in arch.items() if k[:4] != "prec"
        }


def test_proposals_keep_to_the_space():
    space = SPACE.restricted(slow_blocks(SPACE, [lambda block: 1.0]))
    losses = {
        name: {"fp32": 0.0, "w8": 0.1, "w8a8": 0.0} for name in space.names if name[:4] == "prec"
    }
    for arch in space.uniform(3):
        for found in propose(space, arch, losses, [latency], 3):
            assert "w8a8" not in space.schemes(found)


WORK = SPACE.default_workload


def policies(space, arch):
    genes = [name for name in arch if name.startswith("precision.")]
    for names in product(space.precision, repeat=len(genes)):
        yield space.architecture({**arch, **dict(zip(genes, names, strict=True))})


def total(losses, arch):
    return sum(losses[name][value] for name, value in arch.items() if name in losses)
