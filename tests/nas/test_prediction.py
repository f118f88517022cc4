"""What is fitted on a run's whole subnets comes back from `table.json` as it was."""

import json

import numpy as np
import pytest

from latency.noise import Noise
from latency.table import LatencyTable
from nas.config import validate
from nas.run import Run
from nas.stages.prediction import Prediction
from nas.stages.supernet import build_space
from search_spaces import UserError
from tests.predictors.simulated_device import measured_table, measured_whole, random_device

CONFIG = {
    "name": "digits",
    "device": "cpu-1t",
    "task": {"kind": "image-classification", "data": "digits"},
    "space": {
        "patch_size": 2,
        "embed": [16, 32, 64],
        "depth": [1, 2, 3],
        "heads": [1, 2, 4],
        "ffn": [32, 64, 128],
        "head_dim": 16,
    },
    "training": {"steps": 1},
}


@pytest.fixture
def run(tmp_path):
    latency = {"source": "cpu"}
    config = validate(
        {**CONFIG, "output": str(tmp_path / "run"), "latency": latency}, source="test"
    )
    with Run.open(config) as run:
        yield run


def known_device(run, space, law, rng):
    """The table of the other device, as its measuring left it."""
    rows = measured_table(law, 0.01, rng, space=space)
    data = {
        "schema": 1,
        "space": space.digest,
        "workloads": {"latency": {"batch": 1, "past": 0}},
        "rows": [row.to_json() for row in rows.rows],
        "corrections": {
            "latency": {"kind": "factors", "coefficients": [1, 1, 1], "std": 0.02, "subnets": 8}
        },
    }
    path = run.directory.of_device("cpu").table
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("kind", "subnets", "fitted"),
    [("auto", 8, "factors"), ("table", 0, "factors"), ("learned", 10, None), ("transfer", 8, None)],
)
def test_it_comes_back(run, kind, subnets, fitted):
    rng = np.random.default_rng(0)
    space, law = build_space(run.config), random_device(rng)
    (run.directory.path / "devices.json").write_text('{"schema": 1, "first": "cpu-1t"}')
    run.directory.table.write_text("{}")
    known_device(run, space, random_device(rng), rng)
    table = measured_table(law, 0.01, rng, space=space) if fitted else LatencyTable(())
    prediction = Prediction(run, space, table, "latency", kind)
    architectures = prediction.propose(subnets)
    latency = measured_whole(law, architectures, 0.01, rng, space=space)
    predictor, fit = prediction.fit(architectures, latency, Noise(own=0.01, shared=0.02))
    if fitted:
        assert fit["kind"] == fitted
    else:
        assert fit["kind"] in fit["cross_validation_mape"]
        assert fit["subnets"] == subnets
    whole = [
        {"workload": "latency", "architecture": dict(arch), "measured_ms": value}
        for arch, value in zip(architectures, latency.tolist(), strict=True)
    ]
    failed = {"workload": "latency", "architecture": dict(space.largest), "measured_ms": None}
    saved = json.loads(json.dumps(fit))
    again = Prediction(run, space, table, "latency", kind).read(saved, [*whole, failed])
    unseen = [space.sample(rng) for _ in range(50)]
    for first, second in zip(predictor.predict(unseen), again.predict(unseen), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5)
    if subnets:
        truth = measured_whole(law, unseen, 0.01, rng, space=space)
        mean, std = again.predict(unseen)
        assert (np.abs(mean - truth) <= 1.645 * std).mean() > 0.7
        assert (std >= 0.02 * mean).all()


def test_a_source_that_is_none(run):
    space = build_space(run.config)
    prediction = Prediction(run, space, LatencyTable(()), "latency", "transfer")
    with pytest.raises(UserError, match=r"latency\.source cpu is no other device with a table"):
        prediction.fit([space.smallest] * 2, [1.0, 1.1], Noise())
    (run.directory.path / "devices.json").write_text('{"schema": 1, "first": "cpu-1t"}')
    run.directory.table.write_text("{}")
    path = known_device(
        run, space, random_device(np.random.default_rng(0)), np.random.default_rng(0)
    )
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": []}))
    with pytest.raises(UserError, match="has no rows for this space and workload 'latency'"):
        prediction.fit([space.smallest] * 2, [1.0, 1.1], Noise())


def test_too_few_to_learn_from(run):
    space = build_space(run.config)
    prediction = Prediction(run, space, LatencyTable(()), "latency", "learned")
    with pytest.raises(UserError, match="2 whole subnets are too few to learn from"):
        prediction.fit([space.smallest, space.largest], [1.0, 2.0], Noise())
