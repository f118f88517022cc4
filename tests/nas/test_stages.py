"""One small run from data to report, through the command line, and what later commands make of it.

Everything is real, onnxruntime in fresh processes too; only the measuring protocol is shortened.
"""

import html
import json
import math
import re
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import latency.graphs
import nas.stages.supernet
from latency.backend import ModelRejectedError
from latency.cpu_session import cpu_session
from latency.database import connect
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.onnxruntime_session import WITHOUT_VNNI, session_config
from latency.timing import TimingConfig
from nas.cli import main
from nas.deploy.classify import Classifier
from nas.deploy.generate import Generator
from nas.events import read_lines
from nas.store import EvaluationStore
from nas.subnets import load_subnet, write_onnx
from predictors.correction import SMOOTH_STD
from reports import load_run
from reports.use import use
from search_spaces import Architecture, Block, UserError, Workload, space_from_json
from supernet.checkpoint import load_supernet, load_weights
from supernet.families import build_supernet
from supernet.training import Trainer
from tests.nas.short_protocol import short_timing

pytestmark = pytest.mark.slow

DIGITS = """
name: digits
output: runs/digits
device: cpu
task: {kind: image-classification, data: digits, batch_size: 32}
space: {patch_size: 4, head_dim: 4, embed: [8], depth: [1, 2], heads: [1, 2], ffn: [8, 16]}
training: {steps: 30, warmup_steps: 5, learning_rate: 0.01, threads: 1, log_every: 10}
latency: {correction_subnets: 2}
search: {budget: 12, population: 6, front_size: 3}
"""

TEXT = """
name: text
output: runs/text
device: cpu-1t
task: {kind: language-modelling, data: texts, context: 16, batch_size: 4, evaluation_tokens: 256}
space: {head_dim: 4, group: 2, embed: [8], depth: [1, 2], heads: [2], ffn: [8, 16]}
training: {steps: 10, warmup_steps: 2, threads: 1, log_every: 5}
workloads: {prefill: {sequence: 16}, decode: {past: 15}}
latency: {correction_subnets: 1}
search: {budget: 6, population: 4, front_size: 2}
"""


@pytest.fixture(scope="module", autouse=True)
def short_protocol(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimingConfig, "quick", classmethod(short_timing))
        # A lease of its own: tests run side by side, and beside real measurements.
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("lease")))
        yield


def first_run(folder, name, yaml):
    (folder / f"{name}.yaml").write_text(yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", f"{name}.yaml"]) == 0
    return folder / "runs" / name


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The run directory of a finished run; nobody changes it."""
    return first_run(tmp_path_factory.mktemp("digits"), "digits", DIGITS)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "texts").mkdir()
    rng = np.random.default_rng(0)
    words = ["the", "net", "learns", "größe", "and\n", "of", "tokens"]
    for index in range(12):
        text = " ".join(rng.choice(words, size=120))
        (folder / "texts" / f"{index}.txt").write_text(text, encoding="utf-8")
    return first_run(folder, "text", TEXT)


@pytest.fixture
def copied(digits, tmp_path, monkeypatch):
    """A copy of the finished run to work on, from the folder above it."""
    shutil.copytree(digits.parents[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("runs/digits")


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder):
    """All files but the log of commands."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("events.jsonl", ".lock", "config.yaml")
    }


def rows(directory):
    """Evaluations, and the sessions that timed each model."""
    with closing(connect(directory / "run.db")) as connection:
        evaluations = [
            (row.supernet_hash, row.split, row.architecture)
            for row in EvaluationStore(connection).rows()
        ]
        sessions = connection.execute(
            "SELECT s.fingerprint, m.sha256, m.signature, s.session_id FROM latency_sessions s"
            " JOIN latency_samples m USING (number) ORDER BY s.number, m.sha256"
        ).fetchall()
    return evaluations, sessions


def trained(directory):
    tensors, info = load_supernet(directory / "supernet.safetensors")
    model = build_supernet(space_from_json(info["space"]))
    load_weights(model, tensors, source=directory)
    return model.eval()


def random_feeds(how, sizes, seed=0):
    """Inputs as the JSON beside an export asks for them."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in how["inputs"]:
        shape = [sizes[size] if isinstance(size, str) else size for size in port["shape"]]
        if port["type"] == "int64":
            feeds[port["name"]] = rng.integers(0, 256, shape)
        else:
            feeds[port["name"]] = rng.standard_normal(shape).astype(port["type"])
    return feeds


# What a run leaves.


def test_every_stage_leaves_its_file(digits):
    names = {path.name for path in digits.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "events.jsonl",
        "exports",
        "front.csv",
        "front.json",
        "report.html",
        "run.db",
        "search.json",
        "splits.json",
        "supernet.json",
        "supernet.safetensors",
        "table.json",
        "training.jsonl",
    }
    assert "training.safetensors" not in names
    assert not [path for path in digits.rglob("*") if "tmp" in path.name]
    for path in digits.glob("*.json"):
        if path.name not in ("environment.json",):
            assert load(path)["schema"] == 1, path
    events = [event["event"] for event in read_lines(digits / "events.jsonl")]
    assert events[0] == "environment"
    assert events[-1] == "command_ended"
    steps = [line["step"] for line in read_lines(digits / "training.jsonl")]
    assert steps == [10, 20, 30]


@pytest.mark.parametrize("name", ["digits", "text"])
def test_front_json_is_as_documented(name, request):
    directory = request.getfixturevalue(name)
    front = load(directory / "front.json")
    assert front["schema"] == 1
    assert front["supernet"] == load(directory / "supernet.json")["hash"]
    device = front["device"]
    assert device["name"] == {"digits": "cpu", "text": "cpu-1t"}[name]
    assert device["backend"] == "onnxruntime"
    assert device["fingerprint"]["threads"] == str(device["threads"])
    workloads = {"digits": ["latency"], "text": ["prefill", "decode"]}[name]
    quality = {"digits": "error", "text": "bits_per_byte"}[name]
    assert front["objectives"] == [quality, *(f"{workload}_ms" for workload in workloads)]
    space = space_from_json(load(directory / "supernet.json")["space"])
    assert front["subnets"]
    assert [subnet["name"] for subnet in front["subnets"]] == [
        f"s{index:02d}" for index in range(len(front["subnets"]))
    ]
    for subnet in front["subnets"]:
        arch = space.architecture(subnet["architecture"])
        assert list(subnet["workloads"]) == workloads
        for load_ in subnet["workloads"].values():
            measured = load_["measured_ms"]
            assert (measured["status"], measured["sessions"]) == ("ok", 2)
            assert 0 < measured["low"] <= measured["median"] <= measured["high"]
            assert load_["predicted_ms"] > 0
        first = subnet["workloads"][workloads[0]]
        assert subnet["predicted_latency_ms"] == first["predicted_ms"]
        assert subnet["measured_latency_ms"] == first["measured_ms"]
        latencies = [subnet["workloads"][workload]["predicted_ms"] for workload in workloads]
        assert subnet["values"][1:] == pytest.approx(latencies)
        assert subnet["quality"]["metric"] == {"error": "accuracy"}.get(quality, quality)
        assert set(subnet["quality"]) == {"metric", "validation", "test", "test_se", "export_test"}
        assert subnet["quality"]["test_se"] > 0
        plain = build_supernet(space).extract(arch)
        assert subnet["parameters"] == sum(p.numel() for p in plain.parameters())
        assert subnet["size_bytes"] == 4 * subnet["parameters"]
        assert (subnet["kv_cache_bytes"] > 0) == (name == "text")
        assert subnet["macs"] > 0
        assert subnet["precision"] == {"all": "fp32"}
        assert (directory / subnet["export"]).is_file()
    exported = sorted(path.name for path in (directory / "exports").iterdir())
    names = [subnet["name"] for subnet in front["subnets"]]
    script = {"digits": "classify.py", "text": "generate.py"}[name]
    assert front["script"] == f"exports/{script}"
    assert exported == sorted([script, *(f"{n}.{s}" for n in names for s in ("onnx", "json"))])


@pytest.mark.parametrize("name", ["digits", "text"])
def test_the_front_holds_no_dominated_point_and_nothing_dominates_it(name, request):
    found = load(request.getfixturevalue(name) / "search.json")
    values = [tuple(point["values"]) for point in found["evaluated"]]

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    best = [i for i, b in enumerate(values) if not any(dominates(a, b) for a in values)]
    front = found["front"]
    assert set(front) <= set(best)
    # Of points with equal values one is enough.
    assert {values[i] for i in front} == {values[i] for i in best}
    assert set(found["selected"]) <= set(front)
    assert len(found["selected"]) == min(len(front), {"digits": 3, "text": 2}[name])
    architectures = [Architecture(point["architecture"]) for point in found["evaluated"]]
    assert len(set(architectures)) == len(architectures) <= found["budget"] + found["known"]
    named = [reference["name"] for reference in found["references"]]
    assert (named[0], named[-1]) == ("smallest", "largest")


@pytest.mark.parametrize("name", ["digits", "text"])
def test_a_search_leaves_what_genes_explain(name, request):
    directory = request.getfixturevalue(name)
    found = load(directory / "search.json")
    importance = found["importance"]
    assert importance["evaluations"] == len(found["evaluated"]) < importance["fewest"]
    space = space_from_json(load(directory / "supernet.json")["space"])
    free = {gene: list(values) for gene, values in space.choices.items() if len(values) > 1}
    assert importance["choices"] == free
    # Too few evaluations to tell of the quality; what costs nothing is known.
    assert list(importance["objectives"]) == found["objectives"][1:]
    for shares in importance["objectives"].values():
        assert set(shares["genes"]) == set(free)
        assert shares["kinds"]["depth"]["share"] > 0.1
        total = sum(share["share"] for share in shares["genes"].values())
        assert total == pytest.approx(shares["single"]["share"], abs=1e-3)
    assert "Which genes matter for" in (directory / "report.html").read_text()


@pytest.mark.parametrize("name", ["digits", "text"])
def test_values_are_those_of_store_and_table(name, request):
    directory = request.getfixturevalue(name)
    found, table = load(directory / "search.json"), load(directory / "table.json")
    info = load(directory / "supernet.json")
    space = space_from_json(info["space"])
    latency = {
        (row["workload"], Block(kind=row["kind"], widths=tuple(row["widths"].items()))): row
        for row in table["rows"]
    }
    assert len(latency) == len(table["rows"]) == len(table["workloads"]) * len(space.all_blocks())
    with closing(connect(directory / "run.db")) as connection:
        known = EvaluationStore(connection).all(info["hash"], "validation")
    for point in found["evaluated"]:
        arch = space.architecture(point["architecture"])
        quality, *predicted = point["values"]
        assert quality == known[arch][found["objectives"][0]]
        for workload, value in zip(table["workloads"], predicted, strict=True):
            fit = table["corrections"][workload]
            factors = dict(zip(fit["terms"], fit["coefficients"], strict=True))
            rows = [latency[workload, block] for block in space.blocks(arch)]
            total = sum(factors[row["kind"]] * row["latency_ms"] for row in rows)
            size = math.log(sum(row["latency_ms"] for row in rows)), math.log(len(rows))
            rest = sum(
                weight * SMOOTH_STD**2 * math.exp(-(math.dist(size, place) ** 2) / 2)
                for weight, place in zip(fit["weights"], fit["places"], strict=True)
            )
            assert value == pytest.approx(total / (1 - rest), rel=1e-9)
    assert len(table["whole"]) == len(table["workloads"]) * fit["subnets"]
    assert all(row["measured_ms"] > 0 and row["predicted_ms"] > 0 for row in table["whole"])


def test_the_stored_quality_is_that_of_the_supernet(digits):
    """Computed again from the files alone."""
    from sklearn.datasets import load_digits

    assert len(load_digits().target) == sum(load(digits / "splits.json")["counts"].values())
    model = trained(digits)
    task = nas.stages.supernet.open_task(nas.config.load_config(str(digits / "config.yaml"), []))
    for subnet in load(digits / "front.json")["subnets"]:
        arch = model.space.architecture(subnet["architecture"])
        for split in ("validation", "test"):
            right = total = 0
            with torch.no_grad():
                for images, labels in task.split(split):
                    right += int((model(images, arch).argmax(-1) == labels).sum())
                    total += len(labels)
            assert subnet["quality"][split] == pytest.approx(right / total, abs=1e-9)


@pytest.mark.parametrize("name", ["digits", "text"])
def test_exports_give_what_the_subnet_gives(name, request):
    directory = request.getfixturevalue(name)
    model = trained(directory)
    for subnet in load(directory / "front.json")["subnets"]:
        assert subnet["max_abs_difference"] <= 1e-4
        path = directory / subnet["export"]
        how = load(path.with_suffix(".json"))
        several = how["runtime"]["intra_op_num_threads"] > 1
        assert how["runtime"]["session_config"] == session_config(spinning=several)
        assert how["runtime"]["session_config_without_vnni"] == WITHOUT_VNNI
        assert how["model"] == path.name
        run = cpu_session(path, threads=1)
        assert [value.name for value in run.get_inputs()] == [p["name"] for p in how["inputs"]]
        assert [value.name for value in run.get_outputs()] == [p["name"] for p in how["outputs"]]
        arch = model.space.architecture(subnet["architecture"])
        for batch, sequence, past in ((1, 1, 0), (3, 2, 5), (2, 9, 0)):
            feeds = random_feeds(how, {"batch": batch, "sequence": sequence, "past": past})
            found = run.run(None, feeds)
            with torch.no_grad():
                expected = model.outputs(arch, *(torch.from_numpy(v) for v in feeds.values()))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)
        quality = subnet["quality"]
        tolerance = 1e-5 if name == "text" else 2 / 300
        assert quality["export_test"] == pytest.approx(quality["test"], abs=tolerance)
        assert how["subnet"]["architecture"] == subnet["architecture"]
        # Where an exported file came from stands in it.
        facts = {p.key: p.value for p in onnx.load(path).metadata_props}
        assert facts["architecture"] == arch.to_json()
        assert facts["supernet"] == load(directory / "supernet.json")["hash"]


def test_the_text_run_measures_prefill_and_decode(text):
    table = load(text / "table.json")
    assert table["workloads"] == {
        "prefill": {"batch": 1, "sequence": 16, "past": 0},
        "decode": {"batch": 1, "sequence": 1, "past": 15},
    }
    space = space_from_json(load(text / "supernet.json")["space"])
    for subnet in load(text / "front.json")["subnets"]:
        arch = space.architecture(subnet["architecture"])
        whole = Workload(sequence=16)
        assert subnet["kv_cache_bytes"] == space.cost(arch, whole).kv_cache_bytes
        assert math.isfinite(subnet["quality"]["test"])
    assert load(text / "splits.json")["kind"] == "language-modelling"


# Again.


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be trained, evaluated, exported part by part or timed."""

    def forbidden(*arguments, **keywords):
        raise AssertionError("done again")

    monkeypatch.setattr(nas.stages.supernet, "evaluate", forbidden)
    monkeypatch.setattr(Trainer, "run", forbidden)
    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", forbidden)
    monkeypatch.setattr(latency.graphs, "export_part", forbidden)


def test_a_second_run_does_nothing_again(copied, idle, capsys):
    before, known = contents(copied), rows(copied)
    assert main(["run", "digits.yaml", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["supernet"]["trained_now"] is False
    assert summary["search"]["evaluated_now"] == 0
    assert rows(copied) == known
    after = contents(copied)
    for name in ("table.json", "search.json", "front.json", "supernet.json", "front.csv"):
        assert after[Path(name)] == before[Path(name)], name
    exports = [path for path in before if path.parts[0] == "exports"]
    assert exports
    assert all(after[path] == before[path] for path in exports)
    assert after.keys() == before.keys()


def test_each_stage_alone_does_nothing_again(copied, idle):
    before = contents(copied)
    for command in ("train", "measure", "search", "export", "report"):
        assert main([command, "digits.yaml"]) == 0
    after = contents(copied)
    assert after[Path("front.json")] == before[Path("front.json")]
    assert after[Path("search.json")] == before[Path("search.json")]


def test_lost_results_come_back_the_same(copied, idle):
    """Stage files are made again from the store, without work."""
    before = contents(copied)
    for name in ("table.json", "search.json", "front.json", "report.html"):
        (copied / name).unlink()
    shutil.rmtree(copied / "exports")
    assert main(["run", "digits.yaml"]) == 0
    after = contents(copied)
    for path in before:
        if path.name != "report.html" and not path.name.startswith("run.db"):
            assert after[path] == before[path], path


def test_a_second_device_evaluates_nothing_that_is_known(copied, monkeypatch):
    evaluations, sessions = rows(copied)
    known = {(split, arch) for _, split, arch in evaluations}
    evaluated = []
    evaluate = nas.stages.supernet.evaluate

    def spy(model, task, arch, split, share):
        evaluated.append((split, arch))
        return evaluate(model, task, arch, split, share)

    def forbidden(*arguments, **keywords):
        raise AssertionError("done again")

    monkeypatch.setattr(nas.stages.supernet, "evaluate", spy)
    monkeypatch.setattr(Trainer, "run", forbidden)
    monkeypatch.setattr(latency.graphs, "export_part", forbidden)
    before = contents(copied)
    assert main(["run", "digits.yaml", "--device", "cpu-1t"]) == 0
    assert not known & set(evaluated)
    assert len(evaluated) == len(set(evaluated))
    more, more_sessions = rows(copied)
    assert more[: len(evaluations)] == evaluations
    # What the runtime says of the new device's exports is no evaluation of the supernet.
    judged = [row for row in more[len(evaluations) :] if "onnxruntime" in row[1]]
    assert len(more) == len(evaluations) + len(evaluated) + len(judged)
    assert more_sessions[: len(sessions)] == sessions
    after = contents(copied)
    for name in ("table.json", "search.json", "front.json", "front.csv", "report.html"):
        assert after[Path(name)] == before[Path(name)]
        stem, _, suffix = name.partition(".")
        assert Path(f"{stem}.cpu-1t.{suffix}") in after
    front = load(copied / "front.cpu-1t.json")
    assert front["device"]["name"] == "cpu-1t"
    assert front["device"]["threads"] == 1
    for subnet in front["subnets"]:
        assert Path(subnet["export"]).parent == Path("exports/cpu-1t")
        assert (copied / subnet["export"]).is_file()
    found = load(copied / "search.cpu-1t.json")
    assert found["known"] == sum(split == "validation" for split, _ in known)
    # It knows of its own evaluations no more than when it began: the same search again.
    assert main(["search", "digits.yaml", "--device", "cpu-1t"]) == 0
    assert load(copied / "search.cpu-1t.json") == found


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("learned", ["latency.correction_subnets=6"]),
        ("transfer", ["latency.correction_subnets=4", "latency.source=cpu"]),
    ],
)
def test_a_device_without_a_table_is_searched(copied, kind, more):
    """Whole subnets alone, or with the first device's table."""
    overrides = ["--device", "cpu-1t", f"latency.predictor={kind}", *more]
    assert main(["measure", "digits.yaml", *overrides]) == 0
    table = load(copied / "table.cpu-1t.json")
    assert table["rows"] == []
    (fit,) = table["corrections"].values()
    assert fit["subnets"] == len(table["whole"])
    assert fit["kind"] in fit["cross_validation_mape"]
    assert main(["search", "digits.yaml", *overrides]) == 0
    values = [point["values"][-1] for point in load(copied / "search.cpu-1t.json")["evaluated"]]
    assert min(values) > 0
    assert main(["search", "digits.yaml", "--device", "cpu-1t"]) == 2  # of another predictor


def test_a_quarter_of_the_split_is_never_taken_for_the_whole(copied, capsys):
    capsys.readouterr()
    assert main(["search", "digits.yaml", "search.fidelities=[0.001]"]) == 2
    assert "0.001 of the 362 samples of the validation split are 0, fewer than 2; raise " in (
        capsys.readouterr().err
    )
    before = rows(copied)[0]
    arguments = ["search", "digits.yaml", "search.fidelities=[0.25]", "search.budget=40"]
    capsys.readouterr()
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert re.search(r"\d on the front, .*hypervolume 0\.\d{4}", told.err)
    assert re.search(r"stopped by: +space", told.out)
    found = load(copied / "search.json")
    more = rows(copied)[0][len(before) :]
    looked = {arch for _, split, arch in more if split == "validation:0.25"}
    judged = {arch for _, split, arch in more if split == "validation"}
    assert looked
    assert judged <= looked
    assert {split for _, split, _ in more} == {"validation", "validation:0.25"}
    assert found["left_behind"] == len(looked - judged)
    with closing(connect(copied / "run.db")) as connection:
        whole = EvaluationStore(connection).all(
            load(copied / "supernet.json")["hash"], "validation"
        )
        quarter = EvaluationStore(connection).all(found["supernet"], "validation:0.25")
    assert {metrics["n"] for metrics in quarter.values()} == {90}
    for point in found["evaluated"]:
        metrics = whole[Architecture(point["architecture"])]
        assert metrics["n"] == 362
        assert point["values"][0] == metrics["error"]
    assert main(arguments) == 0
    assert load(copied / "search.json") == found
    assert rows(copied)[0] == before + more


# Bounds.


def test_an_impossible_bound_is_told_with_the_nearest(copied, capsys):
    before, known = contents(copied), rows(copied)
    assert main(["search", "digits.yaml", "search.bounds=[latency_ms <= 1e-9]"]) == 3
    lines = capsys.readouterr().err.splitlines()
    message = lines[-1]
    assert message.startswith("nas search: no architecture meets 'latency_ms <= 1e-09'")
    assert "the nearest has latency_ms" in message
    space = space_from_json(load(copied / "supernet.json")["space"])
    assert any(arch.to_json() in message for arch in space)
    assert contents(copied) == before
    assert rows(copied) == known


@pytest.mark.parametrize(
    ("bound", "measured"), [("macs <= 1", False), ("latency_ms <= 1e-9", True)]
)
def test_an_impossible_bound_is_told_before_training(
    tmp_path, monkeypatch, capsys, bound, measured
):
    monkeypatch.chdir(tmp_path)
    Path("new.yaml").write_text(DIGITS)
    assert main(["run", "new.yaml", f"search.bounds=[{bound}]"]) == 3
    assert bound.split()[0] in capsys.readouterr().err
    assert Path("runs/digits/table.json").exists() == measured
    assert not Path("runs/digits/supernet.json").exists()
    assert not Path("runs/digits/training.jsonl").exists()


def test_a_bound_on_the_search_is_kept(copied):
    found = load(copied / "search.json")
    latencies = sorted(point["values"][1] for point in found["evaluated"])
    bound = latencies[len(latencies) // 2]
    assert main(["search", "digits.yaml", f"search.bounds=[latency_ms <= {bound}]"]) == 0
    found = load(copied / "search.json")
    assert found["front"]
    assert all(found["evaluated"][i]["values"][1] <= bound for i in found["front"])


def test_export_of_the_best_within_a_bound(copied, capsys):
    Path("best.npz").write_text("the user's own")
    found = load(copied / "search.json")
    assert main(["export", "digits.yaml", "--best", "latency_ms <= 1000", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    lowest = min(found["evaluated"][i]["values"][0] for i in found["front"])
    assert summary["subnet"]["values"][0] == lowest
    quality = summary["subnet"]["quality"]
    assert summary["test_accuracy"] == quality["export_test"]
    assert summary["latency_ms"] == summary["subnet"]["measured_latency_ms"]["median"]
    how = load(Path("best.json"))
    assert how["subnet"]["architecture"] == summary["subnet"]["architecture"]
    assert how["model"] == "best.onnx"
    feeds = random_feeds(how, {"batch": 4})
    (logits,) = cpu_session("best.onnx", threads=1).run(None, feeds)
    model = trained(copied)
    arch = model.space.architecture(how["subnet"]["architecture"])
    with torch.no_grad():
        expected = model(torch.from_numpy(feeds["images"]), arch)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-4)
    left = {path.name for path in Path().iterdir()}
    assert left == {
        *("runs", "digits.yaml", "best.onnx", "best.json", "best_classify.py", "best.npz")
    }
    assert Path("best.npz").read_text() == "the user's own"


def in_own_code(directory):
    """The lines of the report."""
    report = (directory / "report.html").read_text(encoding="utf-8")
    return html.unescape(re.search(r'id="use-code">(.*?)</pre>', report, re.DOTALL)[1])


@pytest.mark.parametrize("eight_bits", [False, True])
def test_the_lines_of_the_report_classify_an_image(copied, monkeypatch, eight_bits):
    monkeypatch.chdir(copied)
    lines = in_own_code(Path())
    if eight_bits:  # which ask for exact sums where the processor needs that
        data = load_run(Path())
        subnets = tuple(
            replace(one, architecture={**one.architecture, "precision.qkv.0": "w8a8"})
            for one in data.front.subnets
        )
        lines = use(replace(data, front=replace(data.front, subnets=subnets))).code
        assert "x64quantprecision" in lines
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    names = {}
    exec(lines, names)
    subnets = load(Path("front.json"))["subnets"]
    best = max(subnets, key=lambda subnet: subnet["quality"]["validation"])
    model = trained(Path())
    scale = load(Path("splits.json"))["normalisation"]
    fed = (torch.from_numpy(pixels / 255).float() - scale["mean"][0]) / scale["std"][0]
    with torch.no_grad():
        expected = model(fed[None, None], model.space.architecture(best["architecture"])).numpy()
    np.testing.assert_allclose(names["logits"], expected, rtol=1e-4, atol=1e-4)
    assert names["best"] == expected.argmax()


def test_the_lines_of_the_report_continue_a_text(text, monkeypatch):
    monkeypatch.chdir(text)
    monkeypatch.setattr("sys.path", [*sys.path])
    names = {}
    exec(in_own_code(Path()), names)
    monkeypatch.delitem(sys.modules, "generate")
    # 16 tokens of context, of which the prompt takes all but one.
    assert 0 < len(names["text"]) <= 4


@pytest.mark.parametrize("kind", ["digits", "text"])
def test_a_subnet_in_pytorch_and_back(kind, request, tmp_path):
    directory = request.getfixturevalue(kind)
    name = load(directory / "front.json")["subnets"][-1]["name"]
    export = directory / "exports" / f"{name}.onnx"
    how = load(export.with_suffix(".json"))
    feeds = random_feeds(how, {"batch": 2, "sequence": 5, "past": 0})
    (inputs, *_) = feeds.values()
    (expected,) = cpu_session(export, threads=1).run(["logits"], feeds)
    subnet = load_subnet(directory, name)
    again = load_subnet(directory, how["subnet"]["architecture"])
    tensor = torch.from_numpy(inputs)

    def logits(module):
        given = module(tensor)  # a decoder gives its cache too
        return given if kind == "digits" else given[0]

    with torch.no_grad():
        for one in (subnet, again):
            np.testing.assert_allclose(logits(one), expected, atol=1e-4)

    # A step of fine-tuning.
    optimizer = torch.optim.SGD(subnet.parameters(), lr=0.1)
    logits(subnet).logsumexp(-1).mean().backward()
    optimizer.step()
    with torch.no_grad():
        tuned = logits(subnet).numpy()
    assert np.abs(tuned - expected).max() > 1e-3
    write_onnx(subnet, tmp_path / "tuned.onnx", like=export.with_suffix(".json"))
    np.testing.assert_allclose(
        cpu_session(tmp_path / "tuned.onnx", threads=1).run(["logits"], feeds)[0], tuned, atol=1e-4
    )
    opened = Classifier if kind == "digits" else Generator
    opened(tmp_path / "tuned.onnx")
    assert "subnet" not in load(tmp_path / "tuned.json")  # what was measured was another


def test_a_subnet_that_is_not_there(digits):
    with pytest.raises(UserError, match=r"s77 is not a subnet of .*; name one of s00, "):
        load_subnet(digits, "s77")
    with pytest.raises(UserError, match=r"front\.pi\.json does not exist"):
        load_subnet(digits, "pi/s00")
    with pytest.raises(UserError, match="lacks runtime; name the JSON beside an exported model"):
        write_onnx(load_subnet(digits, "s00"), digits / "a.onnx", like=digits / "front.json")


def test_no_export_within_an_impossible_bound(copied, capsys):
    before = contents(copied)
    arguments = ["export", "digits.yaml", "--best", "latency_ms <= 1e-9", "--output", "a.onnx"]
    assert main(arguments) == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("nas export: no subnet of the front has latency_ms <= 1e-09; ")
    assert "the nearest has latency_ms" in message
    assert '{"depth":' in message
    assert message.endswith("loosen the bound, or search again with it in search.bounds")
    assert not list(Path().glob("a.*"))
    assert contents(copied) == before


@pytest.mark.parametrize("objective", ["error", "macs", "parameters", "cross_entropy"])
def test_the_bound_of_an_export_may_be_on_anything(copied, objective):
    assert main(["export", "digits.yaml", "--best", f"{objective} <= 1e12"]) == 0
    assert Path("best.onnx").is_file()


# Damage.


def flip(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def halve(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.unlink()
    path.mkdir()


def changed(*keys, value):
    """Puts a value somewhere into a JSON file."""

    def change(path):
        inner = content = load(path)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(content))

    return change


no_latency = changed("rows", 0, "latency_ms", value=None)
negative = changed("rows", 0, "low_ms", value=-1.0)
not_a_number = changed("rows", 0, "latency_ms", value=math.nan)
no_such_predictor = changed("corrections", "latency", "kind", value="oracle")
no_such_index = changed("selected", value=[999])
no_index = changed("front", value=["s00"])
not_a_start = changed("starts", value=[{}])


def of_another_space(path):
    path.write_text(json.dumps({**load(path), "space": "0" * 16}))


def lose_a_row(path):
    table = load(path)
    path.write_text(json.dumps({**table, "rows": table["rows"][1:]}))


def of_another_supernet(path):
    path.write_text(json.dumps({**load(path), "supernet": "0" * 64}))


def later(path):
    path.write_text(json.dumps({**load(path), "schema": 2}))


@pytest.mark.parametrize(
    ("name", "damage", "command", "message"),
    [
        ("supernet.safetensors", flip, "run", "do not belong together"),
        ("supernet.safetensors", halve, "run", "is damaged or not a safetensors file"),
        ("supernet.safetensors", empty, "search", "is damaged or not a safetensors file"),
        ("supernet.json", halve, "run", "is not valid JSON"),
        ("supernet.json", later, "export", "has schema 2, this version reads 1"),
        ("run.db", halve, "run", "is not a readable store"),
        ("run.db", halve, "search", "is not a readable store"),
        ("table.json", of_another_space, "search", "is of another search space"),
        ("table.json", lose_a_row, "search", "no row for .* it is of another space"),
        ("table.json", halve, "search", "table.json"),
        ("table.json", empty, "export", "table.json"),
        ("search.json", halve, "export", "search.json"),
        ("search.json", of_another_supernet, "export", "is of another supernet"),
        ("devices.json", halve, "run", "devices.json"),
        ("config.yaml", empty, "search", "config.yaml is empty, so that nobody knows how runs/dig"),
        ("config.yaml", halve, "train", "so that nobody knows how runs/digits was trained; rest"),
        ("table.json", no_latency, "search", r"is damaged \(latency_ms None of fixed {'embed': 8}"),
        ("table.json", negative, "export", r"is damaged \(low_ms -1.0 of fixed"),
        ("table.json", not_a_number, "export", "is not valid JSON .NaN is no number"),
        ("table.json", no_such_predictor, "search", "damaged .no predictor is called oracle.;"),
        ("table.json", folder, "search", "cannot read .*table.json: Is a directory; move it away"),
        ("search.json", no_such_index, "export", "damaged: 999 is none of its [0-9]+ architect"),
        ("search.json", no_index, "export", "damaged: 's00' is none of its [0-9]+ architectures;"),
        ("search.json", folder, "search", "cannot use .*search.json: is a directory; move away"),
        ("search-start.json", not_a_start, "search", "does not say how many evaluations a search"),
        ("report.html", folder, "report", "cannot use .*report.html: is a directory; move away"),
    ],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_a_damaged_file_is_named_and_nothing_is_lost(
    copied, capsys, name, damage, command, message
):
    damage(copied / name)
    before = contents(copied)
    settings = (copied / "config.yaml").read_bytes()
    assert main([command, "digits.yaml"]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line]
    last = err[-1]
    assert last.startswith(f"nas {command}: ")
    assert re.search(message, last), last
    assert "Traceback" not in "\n".join(err)
    assert ";" in last or "run `nas" in last  # and what to do next
    after = contents(copied)
    assert before.keys() <= after.keys()
    for path, data in before.items():
        assert after[path] == data, path
    assert (copied / "config.yaml").read_bytes() == settings or name != "config.yaml"


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        ("table.json", "search", "run `nas measure` first"),
        ("search.json", "export", "run `nas search` first"),
        ("supernet.json", "search", "has no trained supernet; run `nas train` or `nas run` first"),
        ("supernet.safetensors", "search", "does not exist; train first, or check the path"),
    ],
)
def test_a_stage_without_the_one_before(copied, capsys, name, command, message):
    (copied / name).unlink()
    assert main([command, "digits.yaml"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_other_settings_of_the_training_are_refused(copied, capsys):
    before = contents(copied)
    assert main(["run", "digits.yaml", "space.ffn=[8, 32]"]) == 2
    assert "space.ffn" in capsys.readouterr().err
    assert contents(copied) == before


def test_a_run_with_ends_but_no_schemes_of_an_earlier_version_goes_on(copied):
    config = (copied / "config.yaml").read_text()
    assert "precision_ends: []" in config
    (copied / "config.yaml").write_text(
        config.replace("precision_ends: []", "precision_ends: [head]")
    )
    assert main(["search", "digits.yaml"]) == 0
    assert "precision_ends: []" in (copied / "config.yaml").read_text()


def test_an_interrupted_search_is_reported(copied, monkeypatch):
    before = load(copied / "search.json")
    for name in ("search.json", "search-start.json", "front.json", "front.csv", "report.html"):
        (copied / name).unlink()
    with closing(connect(copied / "run.db")) as connection, connection:
        connection.execute("DELETE FROM evaluations")
    metrics, calls = nas.stages.supernet.TrainedSupernet.metrics, []

    def interrupt(self, architectures, *rest):
        calls.append(len(architectures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return metrics(self, architectures, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(nas.stages.supernet.TrainedSupernet, "metrics", interrupt)
        assert main(["search", "digits.yaml"]) == 130
    found = load(copied / "search-unfinished.json")
    assert len(found["evaluated"]) == calls[0]
    assert found["front"]
    assert main(["report", "digits.yaml"]) == 0
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert f"{calls[0]} subnets are evaluated, what is shown is the best" in page
    # It is for reports only, and goes when the search is done
    assert main(["export", "digits.yaml"]) == 2
    assert main(["search", "digits.yaml"]) == 0
    assert not (copied / "search-unfinished.json").exists()
    after = load(copied / "search.json")
    assert len(after["evaluated"]) == after["budget"] == before["budget"]
    assert after["evaluated"][: calls[0]] == found["evaluated"]


def test_a_warm_up_of_over_half_of_the_steps_is_told(copied, capsys):
    short = ["output=runs/short", "training.steps=4"]
    assert main(["train", "digits.yaml", *short]) == 0
    line = "training.warmup_steps is 5, over half of training.steps 4: the learning rate rises in 2"
    assert line in capsys.readouterr().err
    assert main(["train", "digits.yaml", *short]) == 0
    assert "warmup_steps" not in capsys.readouterr().err


def test_a_measurement_that_fails_is_told_by_the_exit_code(copied, monkeypatch, capsys):
    """Exit code 4: the front is there, without that latency."""
    with closing(connect(copied / "run.db")) as connection:
        for path in (copied / "exports").glob("*.onnx"):
            facts = "%" + path.name + "%"
            connection.execute("DELETE FROM latency_samples WHERE provenance LIKE ?", (facts,))
        connection.commit()

    def refuse(self, models, timing):
        raise ModelRejectedError({model.sha256: "no such operator" for model in models[1:]})

    monkeypatch.setattr(OnnxRuntimeBackend, "run_session", refuse)
    assert main(["export", "digits.yaml"]) == 4
    assert "failed" in capsys.readouterr().err
    for subnet in load(copied / "front.json")["subnets"]:
        measured = subnet["measured_latency_ms"]
        assert (measured["status"], measured["median"]) == ("rejected", None)
    assert main(["report", "digits.yaml"]) == 0
