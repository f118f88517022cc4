"""A small run over architectures with precision policies, from data to report."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from latency.cpu_session import cpu_session
from latency.timing import TimingConfig
from nas.cli import main
from nas.config import load_config
from nas.run import Run
from nas.stages.device_lab import DeviceLab, random_subnets
from nas.stages.known_table import load_predictors
from nas.stages.policies import without_slow_blocks
from nas.stages.search import Objectives, search_identity
from nas.stages.search_start import SearchStart
from nas.stages.supernet import open_supernet
from search_spaces import Block, space_from_json
from search_spaces.schemes import FULL, SCHEMES
from tests.nas.short_protocol import short_timing

pytestmark = pytest.mark.slow

DIGITS = """
name: digits
output: digits
device: cpu-1t
task: {kind: image-classification, data: digits, batch_size: 32}
space:
  patch_size: 4
  head_dim: 4
  embed: [8]
  depth: [1, 2]
  heads: [2]
  ffn: [8, 16]
training: {steps: 30, warmup_steps: 5, learning_rate: 0.01, threads: 1, log_every: 10}
latency: {correction_subnets: 2}
search: {objectives: [error, latency_ms, size_bytes], budget: 12, population: 6, front_size: 4}
"""
CHOICES = "space.precision=[fp32, w8, w8a8]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run; nobody changes it."""
    folder = tmp_path_factory.mktemp("policies")
    (folder / "digits.yaml").write_text(DIGITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(TimingConfig, "quick", classmethod(short_timing))
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("lease")))
        # Trained without policies, and searched with them: training knows of none
        assert main(["train", "digits.yaml"]) == 0
        assert main(["run", "digits.yaml", CHOICES]) == 0
    return folder


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_front_has_policies_that_are_exported(folder):
    supernet = load(folder / "digits" / "supernet.json")
    front = load(folder / "digits" / "front.json")
    assert front["supernet"] == supernet["hash"]
    assert "precision" not in supernet["space"]
    seen = set()
    for subnet in front["subnets"]:
        genes = {
            name.removeprefix("precision."): value
            for name, value in subnet["architecture"].items()
            if name.startswith("precision.")
        }
        assert subnet["precision"] == {**genes, "other": "fp32"}
        seen |= set(genes.values())
        path = folder / "digits" / subnet["export"]
        weights = path.stat().st_size
        assert weights >= subnet["size_bytes"]
        outputs = cpu_session(path, threads=1).run(
            None, {"images": np.zeros((1, 1, 8, 8), np.float32)}
        )
        assert np.isfinite(outputs[0]).all()
        assert subnet["measured_latency_ms"]["median"] > 0
        assert subnet["quality"]["export_test"] == pytest.approx(
            subnet["quality"]["test"], abs=0.003
        )
        assert set(subnet["uniform"]) == {"fp32", "w8", "w8a8"}
        assert subnet["uniform"]["w8"]["size_bytes"] <= subnet["size_bytes"]
        assert subnet["uniform"]["fp32"]["size_bytes"] >= subnet["size_bytes"]
        same = subnet["uniform"]["fp32"]["predicted_ms"], subnet["uniform"]["w8"]["predicted_ms"]
        assert same[0] == same[1]
    assert seen - {FULL}
    # Of one architecture, the smaller file is the smaller claim
    sizes = [(s["size_bytes"], s["architecture"]["depth"]) for s in front["subnets"]]
    assert len(set(sizes)) == len(sizes)


def test_the_table_has_a_row_for_each_arithmetic(folder):
    table = load(folder / "digits" / "table.json")
    schemes = {
        tuple(v for name, v in row["widths"].items() if name.startswith("precision."))
        for row in table["rows"]
    }
    assert schemes == {(), ("w8a8",), ("w8a8", "w8a8")}
    assert len(table["rows"]) == 1 + 4 + 2 * 4


def test_no_block_has_a_scheme_that_does_not_pay(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with Run.open(load_config("digits.yaml", [CHOICES])) as run:
        supernet = open_supernet(run)
        predictors = load_predictors(run, supernet.space)
        space = without_slow_blocks(supernet.space, predictors)
        assert space.in_networks is not None
        table = predictors["latency"].table
        found = load(folder / "digits" / "search.json")
        for point in found["evaluated"]:
            for block in space.blocks(space.architecture(point["architecture"])):
                for part, name in block.precision:
                    if SCHEMES[name].runs_as != FULL:
                        rest = tuple(pair for pair in block.precision if pair[0] != part)
                        other = Block(kind=block.kind, widths=block.widths, precision=rest)
                        fast, slow = (table.latency_ms("latency", b) for b in (block, other))
                        assert fast < slow


def test_policies_are_shown_in_the_report(folder):
    page = (folder / "digits" / "report.html").read_text()
    front = load(folder / "digits" / "front.json")
    if any("w8a8" in subnet["precision"].values() for subnet in front["subnets"]):
        assert "w8a8" in page
    assert "FFN in" in page or "attention output" in page or "query, key, value" in page


def test_what_is_refused(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "devices").mkdir()
    (folder / "devices" / "torch-cpu.yaml").write_text("backend: torch\n")
    (folder / "devices" / "floats.yaml").write_text("precisions: [fp32, fp16, w8]\n")
    for arguments, message in (
        (["latency.predictor=learned"], "knows nothing of space.precision"),
        (["space.precision=[w8]"], "lacks fp32, which the others are compared with; add it"),
        (["--device", "torch-cpu"], "space.precision is for onnxruntime on a CPU"),
        (["--device", "floats"], "space.precision w8a8: device floats offers fp32, fp16, w8;"),
    ):
        assert main(["measure", "digits.yaml", CHOICES, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_what_another_version_of_a_scheme_gave_is_not_taken_for_it(folder, monkeypatch, capsys):
    shutil.copytree(folder / "digits", folder / "versions")
    monkeypatch.chdir(folder)
    with Run.open(load_config("digits.yaml", [CHOICES, "output=versions"])) as run:
        supernet = open_supernet(run)
        space, lab = supernet.space, DeviceLab(run, supernet.space)
        arch = space.with_scheme(space.largest, "w8")

        def evaluated_and_exported():
            supernet.metrics([arch], "validation")
            random_subnets(lab, {"latency": [arch]})
            files = [path for path in (lab.folder / "whole").iterdir() if path.suffix == ".onnx"]
            return run.store.count(), len(files)

        known = evaluated_and_exported()
        assert evaluated_and_exported() == known
        monkeypatch.setitem(SCHEMES, "w8a8", replace(SCHEMES["w8a8"], version=2))
        # The space has it, the file does not
        assert evaluated_and_exported() == (known[0] + 1, known[1])
        monkeypatch.setitem(SCHEMES, "w8", replace(SCHEMES["w8"], version=2))
        assert evaluated_and_exported() == (known[0] + 2, known[1] + 1)
    assert main(["search", "digits.yaml", CHOICES, "output=versions"]) == 2
    error = capsys.readouterr().err
    assert (
        "table.json is of another version of a scheme ({}, not {'w8': 2, 'w8a8': 2}); run" in error
    )


def test_a_table_of_another_version_is_not_taken_for_this_one(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["table", "export", "digits.yaml", "policies.csv"]) == 0
    (folder / "other.yaml").write_text(DIGITS.replace("output: digits", "output: shared"))
    command = ["measure", "other.yaml", CHOICES, "--device", "bench"]
    with monkeypatch.context() as patch:
        patch.setitem(SCHEMES, "w8a8", replace(SCHEMES["w8a8"], version=2))
        assert main(["table", "import", "other.yaml", "policies.csv", "--device", "bench"]) == 0
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "the stored table of bench lacks 9 of 13 rows, such as " in error
        assert "(it has rows of w8a8, which is another now); measure them where" in error
        # What does not have it is used
        assert main([*command, "space.precision=[fp32, w8]"]) == 0
    assert main(command) == 0
    rows = load(folder / "shared" / "table.json")["rows"]
    expected = load(folder / "digits" / "table.json")["rows"]
    assert [row["latency_ms"] for row in rows] == [row["latency_ms"] for row in expected]


def test_what_one_list_of_schemes_evaluated_serves_another(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with Run.open(load_config("digits.yaml", [CHOICES])) as run:
        supernet = open_supernet(run)
        more = supernet.space
        fewer = space_from_json(more.to_json() | {"precision": ["fp32", "w8"]})
        known = []
        for space in (more, fewer):
            settings = search_identity(run, Objectives(run, space, {}))
            known.append(SearchStart(run, supernet.stored_as, settings).known(["error"], space))
        evaluated = [
            more.architecture(point["architecture"])
            for point in load(folder / "digits" / "search.json")["evaluated"]
        ]
        assert not known[0]  # it goes on with its own search
        assert set(known[1]) >= {arch for arch in evaluated if arch in fewer} > set()


def test_a_training_with_policies_gives_weights_that_know_none(folder, monkeypatch):
    monkeypatch.chdir(folder)
    changes = [CHOICES, "output=aware", "training.policy_steps=10"]
    assert main(["train", "digits.yaml", *changes]) == 0
    known, found = (load(folder / name / "supernet.json") for name in ("digits", "aware"))
    assert found["training"]["steps"] == 40
    assert found["space"] == known["space"]
    assert found["hash"] != known["hash"]
    lines = (folder / "aware" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40]
    with Run.open(load_config("digits.yaml", changes)) as run:
        supernet = open_supernet(run)
        coarse = supernet.space.with_scheme(supernet.space.largest, "w8a8")
        assert supernet.metrics([coarse], "validation")[0]["error"] < 1
