"""The benchmarks' command lines and what they compute with; the figures come from `make bench`."""

import importlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import fidelity, kill, latency, predictors, pretrained, results
from benchmarks.overhead import SPACES
from latency.measurement import Measurement
from nas.config import validate
from search_spaces import Architecture, UserError, VisionTransformerSpace
from supernet.families import build_supernet

pytestmark = pytest.mark.slow

SPACE = SPACES["digits"]
BENCHMARKS = [
    "attention_form",
    "calm_blocks",
    "fidelity",
    "int8_pays",
    "kill",
    "latency",
    "low_bits",
    "outlier_cost",
    "overhead",
    "policy_search",
    "predictor_choice",
    "predictors",
    "pretrained",
    "quantization",
    "search",
    "search_fidelities",
    "search_kill",
    "search_oracle",
    "search_stopping",
    "second_device",
    "sensitivity_scores",
]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help(name, capsys, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_table_aligns_its_columns():
    text = results.table(["name", "n"], [["a", "1"], ["long name", "23"]])
    assert text.splitlines() == ["name        n", "a           1", "long name  23"]


def test_what_is_not_known_is_a_dash():
    assert results.percent(math.nan) == results.number(None) == "-"
    assert results.percent(0.0123) == "1.23 %"


def test_results_hold_no_nan(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    text = results.write_results("x", {"values": [{"se": math.nan}, 1.0]}).read_text()
    assert "NaN" not in text
    assert '"se": null' in text


def test_unseen_subnets_are_distinct_and_unseen():
    seen = latency.unseen_subnets(SPACE, 8, ())
    found = latency.unseen_subnets(SPACE, 30, seen)
    assert len(set(found)) == 30
    assert not set(found) & set(seen)


def test_too_small_a_space_is_named():
    small = fidelity_space()
    with pytest.raises(UserError, match="--subnets"):
        latency.unseen_subnets(small, small.size, [small.smallest])


def fidelity_space():
    return fidelity.vision_space(configuration())


def configuration(**training):
    return validate(
        {
            "output": "nowhere",
            "task": {"kind": "image-classification", "data": "digits", "batch_size": 8},
            "space": {"patch_size": 4, "embed": [16], "depth": [1, 2], "heads": [1], "ffn": [16]},
            "training": {"steps": 3, "warmup_steps": 1, **training},
        },
        "test",
    )


def measurement(latency_ns, ratio, status="ok"):
    return Measurement(
        sha256="0" * 64, status=status, quick=True, median_ns=latency_ns, ratio=ratio
    )


def test_compare_leaves_out_what_failed():
    architectures = [Architecture({"x": index}) for index in range(3)]
    first = [measurement(1e6, 1.0), measurement(2e6, 2.0), measurement(None, None, "lost")]
    second = [measurement(1.1e6, 1.1), measurement(2e6, 2.0), measurement(3e6, 3.0)]
    found = latency.compare(
        architectures,
        predicted_ms=[1.02, 1.96, 3.0],
        std_ms=[0.05, 0.01, 0.1],
        bare_ms=[1.2, 2.2, 3.0],
        measured=first,
        repeated=second,
    )
    assert (found["n"], found["failed"]) == (2, 1)
    assert found["mape"] == pytest.approx(0.02)
    assert found["table_sum_mape"] == pytest.approx(0.15)
    assert found["repeat_mape"] == pytest.approx(0.05)
    assert found["coverage"] == pytest.approx(0.5)
    found |= {"mode": "standard", "prepare_s": 300.0, "prepare_bar_s": 360.0}
    assert not latency.passes(found)
    found |= {"failed": 0}
    assert latency.passes(found)  # as well as the machine repeats itself
    assert not latency.passes({**found, "repeat_mape": 0.01})
    assert not latency.passes({**found, "kendall_tau": 0.9})
    assert not latency.passes({**found, "prepare_s": 400.0})
    assert latency.passes({**found, "prepare_s": 400.0, "prepare_bar_s": None})
    assert latency.passes({**found, "mode": "quick", "kendall_tau": 0.9})


def state(**changes):
    values = {
        "sessions": {"a": (1, "accepted", 3)},
        "chain_sessions": frozenset({"a"}),
        "evaluations": [(("net", "validation", "{}"), (1, "{}", 12.0))],
        "files": frozenset({"config.yaml", "run.db", "supernet.json", "table.json"}),
        "supernet": "net",
        "weights_ns": 5,
    }
    return kill.Snapshot(**{**values, **changes})


def test_a_snapshot_names_its_stage():
    assert state().stage == "searching"
    assert state(files=frozenset()).stage == "starting"
    assert state(files=frozenset({"config.yaml"})).stage == "training"


def test_an_honest_resume_passes():
    before = state()
    after = state(
        sessions={**before.sessions, "b": (2, "accepted", 3)},
        evaluations=[*before.evaluations, (("net", "validation", "{1}"), (2, "{}", 13.0))],
        files=before.files | {"search.json", "front.json"},
    )
    checks = kill.progress_checks(before, after)
    assert all(checks.values())
    assert {"no block measured again", "not trained again"} <= set(checks)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"sessions": {}}, "sessions are as they were"),
        ({"evaluations": []}, "evaluations are as they were"),
        (
            {"evaluations": [(("net", "validation", "{}"), (1, "{}", 14.0))]},
            "evaluations are as they were",
        ),
        (
            {"evaluations": [(("net", "validation", "{}"), (i, "{}", 12.0)) for i in (1, 2)]},
            "no evaluation twice",
        ),
        ({"weights_ns": 6}, "not trained again"),
        (
            {
                "sessions": {"a": (1, "accepted", 3), "b": (2, "accepted", 3)},
                "chain_sessions": frozenset({"a", "b"}),
            },
            "no block measured again",
        ),
    ],
)
def test_a_dishonest_resume_is_found(changes, broken):
    assert not kill.progress_checks(state(), state(**changes))[broken]


def test_the_configurations_of_the_kill_benchmark_are_valid():
    from latency.yaml_source import parse_yaml

    for sizes in kill.SIZES.values():
        text = kill.CONFIG.format(output="nowhere", **sizes)
        validate(parse_yaml(text, "test"), "test")


def test_mean_and_standard_error():
    assert fidelity.mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert math.isnan(fidelity.mean_and_error([1.0])[1])


def test_another_seed_keeps_the_split():
    config = fidelity.with_seed(configuration(), 2)
    assert (config.seed, config.task.split_seed) == (2, 0)


def test_training_alone_depends_on_the_seed_only():
    config, other = configuration(), configuration(distillation="alpha", random_subnets=4)
    task = fidelity.open_task(config)
    space = fidelity_space()
    torch.set_num_threads(1)
    first, second = (
        fidelity.train_alone(c, task, space.largest, dropout=0.1) for c in (config, other)
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_dropout_alone_is_that_of_the_largest_subnet():
    space = fidelity_space()
    model = build_supernet(space)
    plain = model.extract(space.largest).train()
    fidelity.add_dropout(plain, 0.5)
    images = torch.randn(4, 1, 8, 8)
    torch.manual_seed(0)
    wanted = model(images, space.largest, dropout=0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(plain(images), wanted)
    plain.eval()
    torch.testing.assert_close(plain(images), model(images, space.largest))


def test_tau_of_equal_orders_is_one():
    quality = [
        {split: {"error": e, "cross_entropy": 2 * e} for split in fidelity.SPLITS}
        for e in (0.1, 0.2, 0.3)
    ]
    pairs = [fidelity.pair([q], [q]) for q in quality]
    assert set(fidelity.taus(pairs).values()) == {1.0}
    assert pairs[0]["test_error"]["gap"]["mean"] == 0.0


def test_second_device_says_what_was_wrong():
    from benchmarks import second_device

    good = {"found_in_store": 3, "new_in_store": 1, "asked": 4}
    wrong = dict.fromkeys(("known_and_computed", "computed_twice", "rows_twice", "not_kept"), 0)
    assert second_device.correct({**good, **wrong})
    for name in wrong:
        assert not second_device.correct({**good, **wrong, name: 1})


def write_csv(path, slope, rows=80, seed=0):
    """Random architectures of HAT's columns; latency by decoder layers and FFN width."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(2, 8, (rows, 10))
    x[:, 1], x[:, 5] = 6, rng.integers(1, 7, rows)
    x[:, [2, 6]] *= 300
    decoder = (5 + slope * x[:, 5] * (1 + x[:, 6] / 2000)) * rng.uniform(0.98, 1.02, rows)
    values = np.column_stack([x, np.ones(rows), decoder, np.zeros((rows, 2))])
    np.savetxt(path, values, delimiter=",", header=",".join(f"c{i}" for i in range(14)))


def test_predictors_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "out")
    for name, slope in (("a", 3.0), ("b", 10.0)):
        write_csv(tmp_path / f"{name}.csv", slope, seed=len(name))
    options = "--sizes 10 50 --seeds 1 --mlp-seeds 1 --mlp-steps 2 --workers 1"
    predictors.main([str(tmp_path), *options.split()])
    assert "mean of the files" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "predictors.json").read_text())
    learned = {(r["data"], r["method"], r["size"]): r["mape"] for r in found["learning"]}
    assert set(learned) == {
        (data, *what)
        for data in ("a", "b", "mean of the files")
        for what in [("hat", 64), *((m, n) for m in ("ours", "ridge or svr") for n in (10, 50))]
    }
    assert learned["a", "ours", 50] < 0.03 < learned["a", "hat", 64]
    assert {(r["source"], r["data"]) for r in found["transfer"]} == {("a", "b"), ("b", "a")}
    for pair in found["transfer"]:
        assert pair["chosen_with"]["mape"] < 0.1
        assert pair["more_alone"]["mape"] < 0.03
        assert pair["ridge_or_svr"]["mape"] > 0
        assert pair["scale_alone"]["mape"] < 0.03
        assert "coverage" in pair["random_alone"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,latency\n1,2\n", "1 rows of 2 columns; give 2 columns, as in the header, and at le"),
        ("a,b,latency\n" + "1,2\n" * 30, "30 rows of 2 columns; give 3 columns, as in the head"),
        ("a,b\n1,x\n", "not a CSV of numbers"),
        ("a,b\n1,\n", "not a CSV of numbers"),
        ("a,b\n1,2\n", "the header 'a, b' must name each column, and begin the names of latenc"),
        ("a,a,latency\n1,2,3\n", "the header 'a, a, latency' must name each column"),
        ("1," * 13 + "1\n" + "2," * 13 + "2\n", "must name each column"),
        ("a,latency\n1,2\n" + "nan,2\n" * 30, "row 2: a nan is not finite; leave the row out"),
        ("a,latency\n" + "1,2\n" * 30 + "1,-2", "row 31: the latency -2 is not above 0; leave"),
        (None, "no CSV there"),
    ],
)
def test_a_bad_data_set_is_one_line(tmp_path, capsys, text, message):
    if text:
        (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(SystemExit) as end:
        predictors.main([str(tmp_path)])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_size_too_small_is_one_line(tmp_path, capsys):
    write_csv(tmp_path / "a.csv", 3.0)
    with pytest.raises(SystemExit) as end:
        predictors.main([*f"{tmp_path} --sizes 2 --workers 1 --mlp-seeds 0".split()])
    assert end.value.code == 2
    assert "--sizes 2: give 5 or more" in capsys.readouterr().err


def test_files_of_other_columns_and_few_rows(tmp_path, monkeypatch, capsys):
    """Repeated rows, constant columns, a deviation that is not known, and no pair to transfer."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "out")
    rng = np.random.default_rng(0)
    depth, width = rng.integers(1, 9, 24), rng.choice([64, 128, 256], 24)
    lines = [f"{d},3,{w},{d * (1 + w / 100)},nan" for d, w in zip(depth, width, strict=True)]
    header = "depth,idle,width,latency_ms,latency_std"
    (tmp_path / "few.csv").write_text("\n".join([header, *lines, *lines[:3]]))
    write_csv(tmp_path / "hat.csv", 3.0)
    options = "--sizes 10 20 1600 --seeds 1 --mlp-seeds 1 --mlp-steps 2 --workers 1"
    predictors.main([str(tmp_path), *options.split()])
    shown = capsys.readouterr().out
    assert "known" not in shown
    found = json.loads((tmp_path / "out" / "predictors.json").read_text())
    learned = {(r["data"], r["method"], r["size"]): r["mape"] for r in found["learning"]}
    assert learned["few", "ours", 20] < 0.05
    assert ("few", "hat", 21) in learned
    assert found["transfer"] == []


def test_counting_leaves_no_trace(monkeypatch):
    from benchmarks import second_device

    monkeypatch.setattr(second_device.supernet_stage, "evaluate", lambda *_: {"error": 0.0})
    before = second_device.supernet_stage.evaluate
    arch = Architecture({"x": 1})
    with second_device.counted() as computed:
        for _ in range(2):
            second_device.supernet_stage.evaluate(SimpleNamespace(), None, arch, "test")
    assert computed == {("test", arch): 2}
    assert second_device.supernet_stage.evaluate is before


def test_int8_pays_from_where_it_saves_to_the_largest_width():
    from benchmarks.int8_pays import thresholds, thresholds_table
    from latency.table import LatencyTable, TableRow

    space = VisionTransformerSpace(
        **{k: v for k, v in SPACE.to_json().items() if k != "family"}, precision=("fp32", "w8a8")
    )

    def row(block):
        # Saves a hundredth of the FFN width; never in attention, where it costs
        saved = 0.01 * dict(block.widths).get("ffn", -100) * len(block.precision)
        return TableRow(
            block=block,
            workload="latency",
            latency_ms=30.0 - saved,
            low_ms=0.0,
            high_ms=0.0,
            sessions=3,
            status="ok",
        )

    found = thresholds(space, LatencyTable(map(row, space.timed_blocks())), ["latency"])
    assert len(found) == 4 * len(space.choices["embed"])
    widths = space.choices["ffn.0"]
    for one in found:
        expected = None
        if one["part"].startswith("ffn"):
            expected = min(width for width in widths if 0.01 * width >= 0.02 * 30)
            assert one["times"] == pytest.approx(30 / (30 - 0.01 * max(widths)))
        assert one["least"] == expected
    assert "never" in thresholds_table(found)


def test_a_pretrained_start_gives_a_row_for_each_subnet_and_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrained.main(["--smoke"])
    found = json.loads((tmp_path / "runs/benchmarks/pretrained-smoke.json").read_text())
    ways = {row["start"] for row in found["subnets"]}
    assert len(ways) == 5
    assert len(found["subnets"]) == 25
    largest = [row for row in found["subnets"] if row["start"].startswith("imported")][4::5]
    # The order changes nothing of the largest subnet.
    first, second = (row["test"]["cross_entropy"] for row in largest)
    assert first == pytest.approx(second, abs=1e-5)
    assert "from scratch" in capsys.readouterr().out
