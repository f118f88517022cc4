"""Reading the stage files: what is checked, and what a broken file is answered with."""

import csv
import json

import pytest

from reports import load_run, write_csv
from search_spaces.errors import UserError
from tests.reports.fixture_run import break_measurement, build_lm_run, build_vit_run, read, write


@pytest.fixture
def run(tmp_path):
    return build_vit_run(tmp_path / "run", evaluated=40, size=6)


def test_choices_keep_their_types(run):
    front = read(run, "front")
    front["subnets"][0]["architecture"] = {"a": True, "b": 2, "c": 0.5, "d": "gelu"}
    write(run, "front", front)
    genes = load_run(run).front.subnets[0].architecture
    assert [type(value) for value in genes.values()] == [bool, int, float, str]


def test_torn_and_repeated_training_lines(run):
    with (run / "training.jsonl").open("a") as lines:
        lines.write('\n{"step": 40, "loss_largest": 9.0}\n{"step": 6')
    steps = load_run(run).training
    assert [one.step for one in steps] == list(range(20, 4001, 20))
    assert steps[1].loss_largest == 9.0


def test_front_of_one_workload_may_leave_workloads_out(run):
    front = read(run, "front")
    for subnet in front["subnets"]:
        del subnet["workloads"]
    write(run, "front", front)
    (run / "table.json").unlink()
    data = load_run(run)
    assert data.workloads == ("latency",)
    latency = data.front.subnets[0].latencies["latency"]
    assert latency.predicted_ms == front["subnets"][0]["predicted_latency_ms"]


@pytest.mark.parametrize(
    ("stage", "text", "message"),
    [
        ("front", "{", r"front\.json: not JSON"),
        ("front", "[]", r"front\.json: holds no JSON object"),
        ("table", '{"schema": 7}', r"table\.json: schema 7 is not 1; use the version"),
        ("search", '{"schema": 1}', r"search\.json: objectives: Field required; run its stage"),
        (
            "search",
            '{"schema": 1, "objectives": ["error"], "front": [3]}',
            r"search\.json: front index 3 is not below 0",
        ),
        (
            "search",
            '{"schema": 1, "objectives": ["e"], "evaluated": [{"architecture": {}, "values": []}]}',
            "0 values for 1 objectives",
        ),
    ],
)
def test_broken_files_are_named(run, stage, text, message):
    (run / f"{stage}.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_run(run)


def test_broken_config_is_named(run):
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml: not YAML"):
        load_run(run)


def test_csv_has_a_row_per_subnet_and_empty_cells_for_the_unknown(tmp_path):
    run = build_lm_run(tmp_path / "lm", evaluated=40, size=5)
    break_measurement(run, 1)
    write_csv(run, tmp_path / "front.csv")
    with (tmp_path / "front.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["name"] for row in rows] == [s.name for s in load_run(run).front.subnets]
    assert rows[1]["decode_measured_ms"] == rows[1]["test"] == rows[1]["export"] == ""
    assert rows[1]["decode_status"] == "rejected"
    assert float(rows[0]["prefill_low_ms"]) < float(rows[0]["prefill_high_ms"])
    assert json.loads(rows[0]["architecture"])["embed"] in (128, 192, 256)
