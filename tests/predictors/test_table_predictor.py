"""Latency of a subnet: a sum of rows, corrected by a few whole subnets."""

import json
import math

import numpy as np
import pytest

from latency.table import LatencyTable, TableRow
from predictors.table import UNCORRECTED_STD, Correction, TablePredictor
from search_spaces import DecoderSpace, UserError, VisionTransformerSpace, sample_by_cost

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
TERMS = ("fixed", "attention", "ffn")


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
            low_ms=0.0,
            high_ms=9.0,
            sessions=2,
            status="ok",
        )
        for block in space.all_blocks()
    )


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return sample_by_cost(SPACE, TablePredictor(SPACE, table(), "latency").latency_ms, count, rng)


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
    for arch, value in zip(architectures, mean, strict=True):
        assert predictor.latency_ms(arch) == pytest.approx(value, rel=1e-12)


def test_rows_are_those_of_the_workload():
    rows = [*table().rows, *table(workload="four").rows]
    double = [
        TableRow(**{**vars(row), "latency_ms": 2 * row.latency_ms})
        if row.workload == "four"
        else row
        for row in rows
    ]
    both = LatencyTable(double)
    arch = SPACE.largest
    one = TablePredictor(SPACE, both, "latency").latency_ms(arch)
    assert TablePredictor(SPACE, both, "four").latency_ms(arch) == pytest.approx(2 * one)


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (1.3, 0.9, 0.8), (0.5, 1.2, 1.05)])
def test_factors_are_recovered(factors):
    architectures = some(24)
    predictor = TablePredictor(SPACE, table(), "latency")
    assert predictor.fit(architectures, measured(architectures, factors)) is predictor
    found = predictor.correction
    np.testing.assert_allclose(found.coefficients, factors, rtol=0.03)
    assert found.subnets == 24
    assert found.std < 0.01
    unseen = some(30, seed=7)
    mean, std = predictor.predict(unseen)
    np.testing.assert_allclose(mean, measured(unseen, factors), rtol=0.01)
    np.testing.assert_allclose(std, found.std * mean)


def test_the_standard_deviation_is_that_of_unseen_subnets():
    architectures = some(30)
    predictor = TablePredictor(SPACE, table(), "latency")
    predictor.fit(architectures, measured(architectures, (1.2, 0.9, 1.0), noise=0.05))
    assert 0.03 < predictor.correction.std < 0.08
    unseen = some(40, seed=7)
    mean, _ = predictor.predict(unseen)
    errors = mean / measured(unseen, (1.2, 0.9, 1.0), noise=0.05, seed=1) - 1
    assert predictor.correction.std == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=0.5)


def test_few_subnets_move_the_factors_together():
    """One subnet says how fast the device is, not which rows are wrong."""
    predictor = TablePredictor(SPACE, table(), "latency")
    arch = SPACE.uniform(3)[1]
    predictor.fit([arch], measured([arch], (1.5, 1.5, 1.5)))
    assert predictor.latency_ms(arch) == pytest.approx(measured([arch], (1.5,) * 3)[0], rel=0.02)
    assert all(1.0 < factor < 2.0 for factor in predictor.correction.coefficients)
    # Left out, nothing is known: the error is that of the plain sum, a third too little.
    assert predictor.correction.std == pytest.approx(1 - 1 / 1.5, rel=0.01)


def test_without_subnets_there_is_no_correction():
    predictor = TablePredictor(SPACE, table(), "latency", Correction(coefficients=(2.0, 2.0, 2.0)))
    assert predictor.latency_ms(SPACE.largest) == pytest.approx(
        2 * measured([SPACE.largest], (1, 1, 1))[0]
    )
    predictor.fit([], [])
    assert predictor.correction == Correction()
    assert predictor.correction.std == UNCORRECTED_STD
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


def test_a_table_of_another_space():
    text = DecoderSpace(
        vocabulary=9, context=16, head_dim=4, embed=(8,), depth=(1,), heads=(1,), ffn=(8,)
    )
    predictor = TablePredictor(text, table(), "latency")
    with pytest.raises(UserError, match="it is of another space; run `nas measure` again"):
        predictor.latency_ms(text.largest)
    with pytest.raises(UserError, match="workload 'decode'"):
        TablePredictor(SPACE, table(), "decode").predict([SPACE.largest])


def test_correction_as_json():
    record = json.loads(
        json.dumps(Correction(coefficients=(1.0, 2.0, 3.0), std=0.1, subnets=4).to_json())
    )
    assert record == {
        "kind": "factors",
        "terms": ["fixed", "attention", "ffn"],
        "coefficients": [1.0, 2.0, 3.0],
        "std": 0.1,
        "subnets": 4,
    }
