"""Which blocks are measured, in which order, and what the others are taken for."""

import math

import numpy as np
import pytest

from latency.grid import GRID_POINTS, HELD_OUT, STEP_BLOCKS, WHOLE_BLOCKS, plan, point
from latency.interpolation import UNKNOWN_STD, interpolate
from latency.table import TableRow, fill_in
from search_spaces import Block, DecoderSpace, VisionTransformerSpace
from search_spaces.schemes import SCHEMES

SMALL = VisionTransformerSpace(
    image_size=8,
    patch_size=2,
    channels=1,
    num_classes=10,
    head_dim=16,
    embed=(16, 32, 64),
    depth=(1, 2),
    heads=(1, 2, 4),
    ffn=(32, 64, 128, 192),
)
DENSE = DecoderSpace(
    vocabulary=256,
    context=128,
    head_dim=16,
    embed=range(64, 513, 64),
    depth=(1, 2),
    heads=(1, 2, 4, 8),
    ffn=range(16, 1025, 16),
)
MIXED = VisionTransformerSpace(
    **{k: v for k, v in SMALL.to_json().items() if k != "family"}, precision=tuple(SCHEMES)
)
"""Four arithmetics, and so sixteen policies of a block."""


def rows(measured):
    """Measured rows by workload and block."""
    return {
        ("latency", block): TableRow(
            block=block,
            workload="latency",
            latency_ms=ms,
            low_ms=ms,
            high_ms=ms,
            sessions=2,
            status="ok",
        )
        for block, ms in measured.items()
    }


@pytest.mark.parametrize("space", [SMALL, DENSE, MIXED], ids=["small", "dense", "mixed"])
@pytest.mark.parametrize("grid", [None, 2, 3, 5, 1000])
def test_every_step_leaves_a_table_of_the_whole_space(space, grid):
    """Also where the search would go to the corners: nothing lies outside of what is measured."""
    blocks = space.timed_blocks()
    chosen = plan(blocks, grid)
    assert len(set(chosen.blocks)) == len(chosen.blocks)
    assert set(chosen.blocks) <= set(blocks)
    assert {block for block in chosen.held_out if not block.precision} <= set(chosen.steps[0])
    assert max(len(step) for step in chosen.steps[1:] or chosen.steps) <= STEP_BLOCKS
    assert len(chosen.steps[0]) <= 2 * STEP_BLOCKS
    measured = {}
    for step in chosen.steps:
        measured |= dict.fromkeys(step, 1.0)
        table = fill_in(rows(measured), ["latency"], blocks, chosen.held_out)
        assert [row.block for row in table.rows] == list(blocks)
        marked = {row.block for row in table.rows if row.status == "interpolated"}
        assert marked == set(blocks) - set(measured)
        assert all((row.std_ms is None) == (row.sessions > 0) for row in table.rows)


def test_small_spaces_are_measured_whole_and_dense_ones_on_a_grid():
    assert set(plan(SMALL.all_blocks()).blocks) == set(SMALL.all_blocks())
    assert len(DENSE.all_blocks()) > WHOLE_BLOCKS
    chosen = plan(DENSE.all_blocks())
    ffn = [b for b in chosen.blocks if b.kind == "ffn" and b not in chosen.held_out]
    assert len(ffn) == GRID_POINTS**2
    assert {point(block)[0] for block in ffn} == set(range(64, 513, 64))
    # The error is stated on blocks that the grid does not have.
    apart = [b for b in chosen.held_out if b.kind == "ffn"]
    assert len(apart) == HELD_OUT
    assert not {point(b)[1] for b in apart} & {point(b)[1] for b in ffn}
    assert set(plan(DENSE.all_blocks(), 64).blocks) == set(DENSE.all_blocks())


def test_schemes_that_were_not_measured_together_add_up():
    """After the first step all is known of a device where they do."""
    blocks, saved = MIXED.timed_blocks(), {"w8a8": 3e-4, "w8a8_dynamic": 2e-4, "w4_nbits": -1e-4}

    def law(block):
        embed, width = point(block)
        part = 1e-5 * embed * width
        return 1.0 + 1e-3 * embed + part - sum(saved[name] * embed for _, name in block.precision)

    chosen = plan(blocks)
    first = {block: law(block) for block in chosen.steps[0]}
    table = fill_in(rows(first), ["latency"], blocks, chosen.held_out)
    for row in table.rows:
        assert row.latency_ms == pytest.approx(law(row.block), rel=1e-9)
    sums = [error for error in table.interpolation if error.method == "sum"]
    assert [error.kind.split()[0] for error in sums] == ["attention", "ffn"]
    assert all((error.held_out, error.std) == (0, UNKNOWN_STD) for error in sums)
    # What was measured together says how far off sums are
    both = [block for block in blocks if block.kind == "ffn" and len(block.precision) > 1][:8]
    first |= {block: 1.1 * law(block) for block in both}
    table = fill_in(rows(first), ["latency"], blocks, chosen.held_out)
    (error,) = (e for e in table.interpolation if e.kind == "ffn (several schemes)")
    assert (error.held_out, error.worst) == (8, pytest.approx(1 / 11))
    assert error.std == pytest.approx(1 / 11)


def test_the_same_space_gives_the_same_plan():
    assert plan(DENSE.all_blocks(), 5) == plan(DENSE.all_blocks(), 5)


def ffn(embed, width):
    return Block(kind="ffn", widths=(("embed", embed), ("ffn", width)))


def fill(law, held_out=True, grid=None):
    blocks = [block for block in DENSE.all_blocks() if block.kind == "ffn"]
    chosen = plan(DENSE.all_blocks(), grid)
    measured = {b: law(*point(b)) for b in chosen.blocks if b.kind == "ffn"}
    if not held_out:
        measured = {b: ms for b, ms in measured.items() if b not in chosen.held_out}
    wanted = [block for block in blocks if block not in measured]
    return interpolate("latency", measured, wanted, chosen.held_out)


def test_a_bilinear_law_is_found_exactly():
    def law(embed, width):
        return 0.01 + 1e-4 * embed + 2e-4 * width + 3e-6 * embed * width

    values, error = fill(law, grid=2)
    assert error.held_out == HELD_OUT
    assert error.std < 1e-12
    assert len(values) == error.interpolated == 8 * 64 - 4 - HELD_OUT
    for block, ms in values.items():
        assert ms == pytest.approx(law(*point(block)), rel=1e-9)


def test_the_smooth_method_is_taken_for_a_smooth_law():
    values, error = fill(lambda embed, width: 1e-9 * embed**1.5 * width**1.8)
    assert error.method == "pchip"
    for block, ms in values.items():
        embed, width = point(block)
        assert ms == pytest.approx(1e-9 * embed**1.5 * width**1.8, rel=0.3)


def test_the_stated_error_is_that_of_unseen_blocks():
    """Steps at tile sizes, which no smooth curve has."""

    def law(embed, width):
        return 1e-6 * embed * 128 * math.ceil(width / 128)

    values, error = fill(law)
    errors = [ms / law(*point(block)) - 1 for block, ms in values.items()]
    actual = math.sqrt(np.mean(np.square(errors)))
    assert actual > 0.02
    assert error.std == pytest.approx(actual, rel=0.7)
    assert error.mape <= error.worst


def test_without_held_out_blocks_the_error_is_not_known():
    _, error = fill(lambda embed, width: embed * width, held_out=False)
    assert (error.held_out, error.mape, error.worst) == (0, None, None)
    assert error.std == UNKNOWN_STD
    assert str(error).endswith("their error not measured yet")


def test_nothing_is_extrapolated():
    measured = {ffn(8, 8): 1.0, ffn(8, 32): 2.0, ffn(16, 8): 2.0}  # one corner is missing
    wanted = [ffn(8, 16), ffn(12, 16), ffn(16, 16), ffn(4, 8), ffn(8, 64)]
    values, error = interpolate("latency", measured, wanted, frozenset())
    assert values == {ffn(8, 16): pytest.approx(4 / 3)}
    assert error.interpolated == 1
