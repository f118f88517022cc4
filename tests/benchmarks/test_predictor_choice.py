"""The comparison of predictors, on devices whose law is known."""

import numpy as np
import pytest

from benchmarks.predictor_choice import Measured, main, show, trials
from latency.overhead import FEW, MANY
from search_spaces import UserError
from tests.predictors.simulated_device import SPACE, draw, random_device

WORKLOAD = "batch=1,past=0"


def measured(device, law, subnets, rng, *, blocks=True, noise=0.01):
    """What sessions say: chains of blocks, and whole subnets."""
    one = Measured(device=device, mode="quick", workload=WORKLOAD, baseline_ms=2.0)
    factors = np.exp(noise * rng.standard_normal((len(SPACE.all_blocks()) + subnets, 5)))
    found = iter(factors)
    for block in SPACE.all_blocks() if blocks else ():
        session = next(found)
        for copies in (0,) if block.kind == "fixed" else (FEW, MANY):
            cost = law(block) * max(copies, 1) / 2.0
            one.chains[str(block), copies] = dict(zip("abcde", cost * session, strict=True))
    for arch in draw(subnets, rng):
        cost = sum(map(law, SPACE.blocks(arch))) / 2.0
        one.whole[arch] = dict(zip("fghij", cost * next(found), strict=True))
    return one


def test_predictors_are_compared():
    rng = np.random.default_rng(0)
    known = measured("known", random_device(rng), 8, rng)
    new = measured("new", random_device(rng), 30, rng)
    rows = list(trials(SPACE, new, [known, new], sizes=[10, 29], repeats=1))
    assert {row["subnets"] for row in rows} == {10}  # 29 leave one to predict
    by_name = {row["predictor"]: row for row in rows}
    assert {"choice", "table", "transfer", "ridge"} <= set(by_name)
    assert by_name["table"]["mape"] < 0.02
    assert by_name["table"]["mape"] < by_name["transfer"]["mape"] < by_name["boosting"]["mape"]
    assert sum(row["taken"] for row in rows if row["predictor"] != "choice") == 1
    assert "table" in show(rows)


def test_without_a_table_the_others_remain():
    rng = np.random.default_rng(0)
    new = measured("new", random_device(rng), 16, rng, blocks=False)
    names = {row["predictor"] for row in trials(SPACE, new, [new], sizes=[8], repeats=1)}
    assert "ridge" in names
    assert not names & {"table", "transfer"}


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"holds no run\.db; give the directory of a run"):
        main([str(tmp_path)])
