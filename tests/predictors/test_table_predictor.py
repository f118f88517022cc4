"""Latency of a subnet: a sum of rows, corrected by a few whole subnets."""

import json
import math
import time

import numpy as np
import pytest

from latency.noise import BETWEEN_CALLS, Noise
from latency.statistics import t_quantile
from latency.table import LatencyTable, TableRow
from predictors.correction import LEAST_FACTOR, MOST_SMOOTH, TERMS, Correction
from predictors.table import UNCORRECTED_STD, TablePredictor
from search_spaces import DecoderSpace, UserError, VisionTransformerSpace, sample_by_cost
from tests.predictors.simulated_device import measured_table

SPACE = VisionTransformerSpace(
    image_size=8,
    patch_size=2,
    channels=1,
    num_classes=10,
    head_dim=16,
    embed=(32, 64, 96),
    depth=(1, 2, 4),
    heads=(1, 2, 4),
    ffn=(32, 64, 256),
)


def cost_ms(block):
    widths = dict(block.widths)
    scale = {"fixed": 0.02, "attention": 0.005, "ffn": 0.0004}[block.kind]
    return 0.05 + scale * math.prod(widths.values()) ** 0.7


def table(space=SPACE, workload="latency"):
    return LatencyTable(
        TableRow(
            block=block,
            workload=workload,
            latency_ms=cost_ms(block),
            low_ms=cost_ms(block),
            high_ms=cost_ms(block),
            sessions=5,
            status="ok",
        )
        for block in space.all_blocks()
    )


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return sample_by_cost(SPACE, lambda arch: measured([arch], (1, 1, 1))[0], count, rng)


def measured(architectures, factors, noise=0.0, seed=0):
    """What whole subnets take where each kind of row counts `factors` times."""
    rng = np.random.default_rng(seed)
    by_kind = dict(zip(TERMS, factors, strict=True))
    sums = [
        sum(by_kind[block.kind] * cost_ms(block) for block in SPACE.blocks(arch))
        for arch in architectures
    ]
    return np.array(sums) * np.exp(noise * rng.standard_normal(len(sums)))


def test_uncorrected_it_is_the_sum_of_the_rows():
    predictor = TablePredictor(SPACE, table(), "latency")
    architectures = some(20)
    mean, std = predictor.predict(architectures)
    assert mean.shape == std.shape == (20,)
    np.testing.assert_allclose(mean, measured(architectures, (1, 1, 1)), rtol=1e-12)
    np.testing.assert_allclose(std, UNCORRECTED_STD * mean)


def test_rows_are_those_of_the_workload():
    rows = [*table().rows, *table(workload="four").rows]
    double = [
        TableRow(**{**vars(row), "latency_ms": 2 * row.latency_ms})
        if row.workload == "four"
        else row
        for row in rows
    ]
    both = LatencyTable(double)
    (one,), _ = TablePredictor(SPACE, both, "latency").predict([SPACE.largest])
    (four,), _ = TablePredictor(SPACE, both, "four").predict([SPACE.largest])
    assert four == pytest.approx(2 * one)


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (1.3, 0.9, 0.8), (0.5, 1.2, 1.05)])
def test_factors_are_recovered(factors):
    architectures = some(24)
    predictor = TablePredictor(SPACE, table(), "latency")
    assert predictor.fit(architectures, measured(architectures, factors)) is predictor
    np.testing.assert_allclose(predictor.correction.coefficients, factors, rtol=0.05)
    assert predictor.std < 0.02
    unseen = some(30, seed=7)
    mean, std = predictor.predict(unseen)
    np.testing.assert_allclose(mean, measured(unseen, factors), rtol=0.01)
    np.testing.assert_allclose(std, predictor.std * mean)


@pytest.mark.parametrize(
    ("subnets", "noise", "row_noise"), [(8, 0.01, 0.01), (8, 0.02, 0.03), (24, 0.03, 0.01)]
)
def test_nine_of_ten_unseen_subnets_are_within_the_interval(subnets, noise, row_noise):
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        architectures = list(dict.fromkeys(SPACE.sample(rng) for _ in range(subnets + 40)))
        latency = measured(architectures, (1.3, 0.95, 1.05), noise, seed)
        predictor = TablePredictor(
            SPACE, measured_table(cost_ms, row_noise, rng, space=SPACE), "latency"
        )
        predictor.fit(architectures[:subnets], latency[:subnets], noise=Noise(own=noise))
        mean, std = predictor.predict(architectures[subnets:])
        covered.append(np.mean(np.abs(mean - latency[subnets:]) <= 1.645 * std))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_an_error_that_all_corrections_share_is_counted():
    architectures, unseen = some(8), some(40, seed=7)
    covered = {0.0: [], 0.03: []}
    for seed in range(60):
        # The sessions of the correction were 3 % off, and so are those of what comes later.
        first, later = np.exp(0.03 * np.random.default_rng(seed).standard_normal(2))
        latency = first * measured(architectures, (1, 1, 1), 0.005, seed)
        truth = later * measured(unseen, (1, 1, 1), 0.005, seed + 1000)
        for shared, found in covered.items():
            predictor = TablePredictor(SPACE, table(), "latency")
            predictor.fit(architectures, latency, noise=Noise(shared=shared))
            mean, std = predictor.predict(unseen)
            found.append(np.mean(np.abs(mean - truth) <= 1.645 * std))
    assert np.mean(covered[0.0]) < 0.8
    assert 0.85 <= np.mean(covered[0.03]) <= 0.95


@pytest.mark.parametrize("subnets", [8, 12])
def test_nine_of_ten_are_within_the_interval_on_a_machine_whose_state_changes(subnets):
    """Whole subnets were timed in one state, what is predicted in another; blocks do not add up."""
    covered, own = [], 0.004
    for seed in range(100):
        rng = np.random.default_rng(seed)
        misfit = math.hypot(own, rng.uniform(0.003, 0.012))
        first, later = np.exp(BETWEEN_CALLS / math.sqrt(2) * rng.standard_normal(2))
        architectures = list(dict.fromkeys(SPACE.sample(rng) for _ in range(subnets + 40)))
        latency = measured(architectures, (1.2, 0.95, 1.05), misfit, seed)
        rows = measured_table(cost_ms, 0.008, rng, space=SPACE)
        predictor = TablePredictor(SPACE, rows, "latency").fit(
            architectures[:subnets],
            first * latency[:subnets],
            noise=Noise(own=own, between=BETWEEN_CALLS),
        )
        mean, std = predictor.predict(architectures[subnets:])
        covered.append(np.mean(np.abs(mean - later * latency[subnets:]) <= 1.645 * std))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_wide_rows_make_wide_intervals():
    """A row's interval is in the subnets that have the block, as often as they have it."""
    rng = np.random.default_rng(0)
    rows = {row.block: row for row in table().rows}
    wide = max(rows, key=lambda block: (block.kind == "ffn", block.widths))
    changed = {**vars(rows[wide]), "low_ms": 0.0, "high_ms": 2 * rows[wide].latency_ms}
    rows[wide] = TableRow(**changed)
    predictor = TablePredictor(SPACE, LatencyTable(rows.values()), "latency")
    row_std = rows[wide].latency_ms / t_quantile(4)
    architectures = [SPACE.largest, *(SPACE.sample(rng) for _ in range(30))]
    mean, std = predictor.predict(architectures)
    times = np.array([SPACE.blocks(arch).count(wide) for arch in architectures])
    assert times[0] == 4
    np.testing.assert_allclose(std, np.hypot(UNCORRECTED_STD * mean, times * row_std))


def test_a_block_without_a_row_is_asked_for_only_where_it_occurs():
    rows = [row for row in table().rows if dict(row.block.widths).get("embed") != 96]
    predictor = TablePredictor(SPACE, LatencyTable(rows), "latency")
    known = [arch for arch in some(30) if arch["embed"] != 96]
    np.testing.assert_allclose(predictor.predict(known)[0], measured(known, (1, 1, 1)), rtol=1e-12)
    with pytest.raises(UserError, match=r"no row for fixed\(embed=96\) with workload 'latency'"):
        predictor.predict([*known, SPACE.largest])


def test_ten_thousand_architectures_are_predicted_at_once():
    """A fifth of a second is what is asked for; it takes an eighth of that."""
    rng = np.random.default_rng(0)
    architectures = [SPACE.sample(rng) for _ in range(10_000)]
    predictor = TablePredictor(SPACE, table(), "latency").fit(some(8), measured(some(8), (1, 1, 1)))
    predictor.predict(architectures[:1])
    seconds = []
    for _ in range(5):
        start = time.process_time()
        mean, _ = predictor.predict(architectures)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2
    np.testing.assert_allclose(mean[:100], predictor.predict(architectures[:100])[0], rtol=1e-12)


def test_few_subnets_move_the_factors_together():
    """One subnet says how fast the device is, not which rows are wrong."""
    predictor = TablePredictor(SPACE, table(), "latency")
    arch = SPACE.uniform(3)[1]
    predictor.fit([arch], measured([arch], (1.5, 1.5, 1.5)))
    np.testing.assert_allclose(
        predictor.predict([arch])[0], measured([arch], (1.5,) * 3), rtol=0.02
    )
    assert all(1.0 < factor < 2.0 for factor in predictor.correction.coefficients)
    # Left out, nothing is known: the error is that of the plain sum, a third too little.
    assert predictor.held_out == pytest.approx([1 / 1.5 - 1], rel=0.01)
    assert 0.2 < predictor.std < 0.5


def test_noise_makes_no_latency_below_0():
    """Two subnets on a machine that was busy while the larger one was measured."""
    small, large = SPACE.smallest, SPACE.largest
    sums = measured([small, large], (1, 1, 1))
    for latency in ([0.05 * sums[0], 9 * sums[1]], [9 * sums[0], 0.05 * sums[1]]):
        predictor = TablePredictor(SPACE, table(), "latency").fit([small, large], latency)
        assert min(predictor.correction.coefficients) >= LEAST_FACTOR
        mean, std = predictor.predict(some(30))
        least = LEAST_FACTOR / (1 + MOST_SMOOTH)
        assert (mean >= least * measured(some(30), (1, 1, 1)) - 1e-9).all()
        assert (std > 0).all()


def test_what_blocks_take_in_company_is_learned():
    """Where the weights of all layers do not fit the cache, each layer takes longer than alone."""

    def crowded(architectures):
        depth = np.array([arch["depth"] for arch in architectures])
        return measured(architectures, (1, 1, 1)) * (1 + 0.03 * np.log2(depth))

    architectures, unseen = some(16), some(60, seed=7)
    predictor = TablePredictor(SPACE, table(), "latency").fit(architectures, crowded(architectures))
    error = predictor.predict(unseen)[0] / crowded(unseen) - 1
    sums = measured(unseen, (1, 1, 1)) / crowded(unseen) - 1
    assert abs(error).mean() < 0.1 * abs(sums).mean()


def test_left_out_errors_are_those_of_fits_without_the_subnet():
    architectures = some(9)
    latency = measured(architectures, (1.1, 0.95, 1.02), noise=0.01)
    predictor = TablePredictor(SPACE, table(), "latency").fit(architectures, latency)
    for place, left_out in enumerate(predictor.held_out):
        rest = [index for index in range(9) if index != place]
        other = TablePredictor(SPACE, table(), "latency")
        other.fit([architectures[index] for index in rest], latency[rest])
        (mean,), _ = other.predict([architectures[place]])
        assert left_out == pytest.approx(mean / latency[place] - 1, abs=5e-4)


def test_without_subnets_there_is_no_correction():
    predictor = TablePredictor(SPACE, table(), "latency")
    predictor.restore({"coefficients": (2.0, 2.0, 2.0), "std": 0.1})
    twice = 2 * measured([SPACE.largest], (1, 1, 1))
    np.testing.assert_allclose(predictor.predict([SPACE.largest])[0], twice)
    predictor.fit([], [])
    assert predictor.correction == Correction()
    assert predictor.std == UNCORRECTED_STD
    mean, std = predictor.predict([])
    assert mean.shape == std.shape == (0,)


@pytest.mark.parametrize(
    ("latencies", "value"),
    [
        ([1.0, 0.0], "0.0"),
        ([1.0, -2.0], "-2.0"),
        ([math.nan, 1.0], "nan"),
        ([1.0, math.inf], "inf"),
    ],
)
def test_latencies_that_are_none(latencies, value):
    predictor = TablePredictor(SPACE, table(), "latency")
    with pytest.raises(UserError, match=f"latency {value} ms of a whole subnet is not"):
        predictor.fit([SPACE.smallest, SPACE.largest], latencies)


def test_a_latency_for_each_subnet():
    with pytest.raises(UserError, match=r"latencies of shape \(1,\) for 2 subnets"):
        TablePredictor(SPACE, table(), "latency").fit([SPACE.smallest, SPACE.largest], [1.0])


def test_a_table_of_another_space():
    text = DecoderSpace(
        vocabulary=9, context=16, head_dim=4, embed=(8,), depth=(1,), heads=(1,), ffn=(8,)
    )
    predictor = TablePredictor(text, table(), "latency")
    with pytest.raises(UserError, match="it is of another space; run `nas measure` again"):
        predictor.predict([text.largest])
    with pytest.raises(UserError, match="workload 'decode'"):
        TablePredictor(SPACE, table(), "decode").predict([SPACE.largest])


def test_a_fit_is_restored():
    architectures = some(8)
    latency = measured(architectures, (1.2, 0.9, 1.1), noise=0.01)
    fitted = TablePredictor(SPACE, table(), "latency").fit(architectures, latency)
    record = json.loads(json.dumps(fitted.to_json()))
    assert (record["kind"], record["subnets"]) == ("factors", 8)
    assert record["terms"] == list(TERMS)
    restored = TablePredictor(SPACE, table(), "latency").restore(record)
    for one, other in zip(restored.predict(some(20)), fitted.predict(some(20)), strict=True):
        np.testing.assert_array_equal(one, other)
