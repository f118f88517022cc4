"""The parts a report is made of: numbers, shapes, axes, the static picture."""

import math
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search import non_dominated
from reports import front_on_test, front_svg, load_run, numbers, sections, write_front_svg
from reports.axes import axes, best_by_quality, place
from reports.figures import training_figure
from reports.shapes import describe, layers_of, limits
from reports.stages import TrainingStep
from reports.use import EXACT_SUMS
from tests.reports.fixture_run import (
    HOSTILE,
    break_measurement,
    build_lm_run,
    build_vit_run,
    poison,
    read,
    tell_more,
    write,
)


@pytest.fixture
def run(tmp_path):
    return build_vit_run(tmp_path / "run", evaluated=60, size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.significant(0.012345), "0.0123"),
        (numbers.significant(1234.5), "1234"),
        (numbers.significant(0.0), "0"),
        (numbers.metric_value("accuracy", 0.98125), "98.12 %"),
        (numbers.with_error("error", 0.02, 0.007), "2.00 ± 0.70 %"),
        (numbers.with_error("bits_per_byte", 1.9, None), "1.900"),
        (numbers.count(1_234_567), "1.23 M"),
        (numbers.count(999), "999"),
        (numbers.size(1536), "1.50 KiB"),
        (numbers.duration(182.2), "3 min 02 s"),
        (numbers.percent(0.0071), "0.71 %"),
        (numbers.significant(None), numbers.MISSING),
        (numbers.count(math.nan), numbers.MISSING),
    ],
)
def test_numbers(text, expected):
    assert text == expected


def test_dropped_layers_have_no_bars():
    genes = {"embed": 64, "depth": 2, "heads.0": 4, "ffn.0": 128, "heads.2": 2, "ffn.2": 32}
    assert [layer.kept for layer in layers_of(genes, 3)] == [True, False, True]
    assert describe(genes, 3) == (
        "embedding 64, 2 of 3 layers",
        f"heads 4 {numbers.MISSING} 2",
        f"FFN 128 {numbers.MISSING} 32",
    )


def test_policies_are_lines_of_their_own():
    genes = {"embed": 64, "depth": 1, "heads.1": 2, "ffn.1": 32}
    for part in ("qkv", "attention_out", "ffn_in", "ffn_out"):
        genes[f"precision.{part}.1"] = "w8a8" if part == "ffn_in" else "fp32"
    assert describe(genes, 2)[3:] == (f"FFN in {numbers.MISSING} w8a8",)


def test_genes_of_other_spaces_are_listed():
    genes = {"width": 8, "act": "gelu"}
    assert limits([genes]).layers == 0
    assert describe(genes, 0) == ("act = gelu", "width = 8")


def test_error_and_accuracy_are_one_axis(run):
    data = load_run(run)
    found = {axis.id: axis for axis in axes(data)}
    subnet = data.front.subnets[0]
    at = place(data.front, subnet, found["test"])
    assert found["test"].label == "error (test)"
    assert at.measured == pytest.approx(1 - subnet.quality.test)
    assert (at.low + at.high) / 2 == pytest.approx(at.measured)
    searched = place(data.front, subnet, found["error"]).measured
    assert searched == pytest.approx(1 - subnet.quality.validation)


def test_best_is_chosen_on_validation(run):
    front = load_run(run).front
    best = best_by_quality(front)
    assert best.quality.validation == max(s.quality.validation for s in front.subnets)


def test_accuracy_counts_only_what_was_measured(run):
    break_measurement(run, 2)
    rows = sections.accuracy(load_run(run))
    assert [(row.origin, row.n) for row in rows] == [("front", 7), ("correction", 8)]
    assert all(row.mape.endswith(" %") for row in rows)


def test_resources_have_columns_where_the_device_tells(tmp_path):
    run = build_lm_run(tmp_path / "lm", evaluated=30, size=4)
    plain, _ = sections.front_table(load_run(run))
    tell_more(run)
    data = load_run(run)
    columns, rows = sections.front_table(data)
    labels = [column.label for column in columns]
    assert len(columns) == len(plain) + 4
    assert {len(row) for row in rows} == {len(columns)}
    at = labels.index("decode: energy mJ")
    assert labels[at - 1 : at + 2 : 2] == ["decode: measured ms", "decode: peak memory"]
    assert [row[at].text for row in rows[:2]] == ["12.3 [12.2, 12.5]", numbers.MISSING]
    assert [row[at + 1].sort for row in rows[:2]] == [1536, 1537]
    first = sections.cards(data, limits([]))[1]
    assert [line.partition(":")[0] for line in first.plans] == ["prefill", "decode"]


def test_a_resource_that_was_searched_for_is_no_quality(run):
    tell_more(run)
    front = read(run, "front")
    front["objectives"] += ["latency_energy_mj", "latency_peak_memory_bytes"]
    for subnet in front["subnets"]:
        subnet["values"] += [12.0, 1500.0]
    write(run, "front", front)
    data = load_run(run)
    found = {axis.id: axis for axis in axes(data)}
    energy, memory = found["latency_energy_mj"], found["latency_peak_memory_bytes"]
    assert (energy.label, energy.kind, energy.show(12.34)) == ("energy (mJ)", "cost", "12.3")
    assert (memory.label, memory.kind) == ("peak memory (bytes)", "cost")
    first, second = (place(data.front, subnet, energy) for subnet in data.front.subnets[:2])
    assert (first.predicted, first.measured) == (12.0, 12.34)
    assert (first.low, first.high) == (12.2, 12.48)
    assert (second.predicted, second.measured) == (12.0, None)
    assert place(data.front, data.front.subnets[1], memory).measured == 1537
    text = " ".join(front_on_test.sentences(data.front, axes(data)))
    assert "energy" not in text


def test_many_operators_are_cut(run):
    tell_more(run)
    front = read(run, "front")
    operators = {f"op{index}": index for index in range(1, 10)}
    front["subnets"][0]["workloads"]["latency"]["compute_plan"] = {"GPU": operators}
    write(run, "front", front)
    (line,) = sections.cards(load_run(run), limits([]))[1].plans
    assert line.startswith("45 of 45 operations not on the Neural Engine: op9 (GPU, 9), op8")
    assert line.endswith("op4 (GPU, 4), … (9 in all)")


def test_one_pair_has_no_tau(run):
    front = read(run, "front")
    write(run, "front", front | {"subnets": front["subnets"][:1]})
    assert sections.accuracy(load_run(run))[0].tau == numbers.MISSING


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000))
def test_long_curves_are_thinned_but_keep_their_end(count):
    steps = [TrainingStep(step=i, loss_largest=1.0) for i in range(count)]
    shown = training_figure(steps)["step"]
    assert len(shown) <= 1001
    assert shown[0] == 0
    assert shown[-1] == count - 1


def _picture(text):
    return ET.fromstring(text)


def test_picture_is_xml_with_every_measured_subnet(run, tmp_path):
    break_measurement(run, 1)
    write_front_svg(run, tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text()
    root = _picture(text)
    marks = [e for e in root.iter() if e.get("class") == "fs-dot"]
    assert len(marks) == 7 + 1  # the legend has one
    assert "prefers-color-scheme:dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_picture_of_an_empty_front_says_so(run):
    write(run, "front", read(run, "front") | {"subnets": []})
    text = front_svg(load_run(run))
    _picture(text)
    assert "No measured subnet" in text


def test_picture_escapes_names(tmp_path):
    run = build_lm_run(tmp_path / "lm", evaluated=30, size=4)
    poison(run, HOSTILE)
    root = _picture(front_svg(load_run(run)))
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_the_report_says_how_far_the_front_moves_on_test(run):
    data = load_run(run)
    moved, left = front_on_test.sentences(data.front, axes(data))
    rows = data.front.subnets
    shifts = [(1 - s.quality.test) - s.values[0] for s in rows]
    assert f"of the {len(rows)} subnets moves by" in moved
    mean = 100 * sum(shifts) / len(shifts)
    sign = "+" if mean >= 0 else "\N{MINUS SIGN}"
    assert f"moves by {sign}{abs(mean):.2f} percentage points on average" in moved
    largest = max(rows, key=lambda s: abs(1 - s.quality.test - s.values[0]))
    assert moved.endswith(f"({largest.name}).")
    on_test = np.array([[1 - s.quality.test, s.values[1]] for s in rows])
    assert left.startswith(f"{len(non_dominated(on_test))} of {len(rows)} are still on the front")


def test_every_objective_has_its_own_figure_on_test(tmp_path):
    run = build_lm_run(tmp_path / "lm", evaluated=30, size=4)
    front = read(run, "front")
    for index, subnet in enumerate(front["subnets"]):
        subnet["values_on_test"] = [subnet["values"][0] + 0.25, *subnet["values"][1:]]
        subnet["quality"] |= {"test": None, "test_se": None}
        if index == 1:  # worse than its neighbours on test
            subnet["values_on_test"][0] += 100.0
    write(run, "front", front)
    data = load_run(run)
    moved, left = front_on_test.sentences(data.front, axes(data))
    count = len(data.front.subnets)
    assert f"bits per byte of the {count} subnets" in moved
    assert moved.endswith("the largest +100.250 (s01).")
    assert left == (f"{count - 1} of {count} are still on the front on test; dominated there: s01.")


def test_without_figures_on_test_nothing_is_said_of_it(run):
    for index in range(8):
        break_measurement(run, index)
    data = load_run(run)
    assert list(front_on_test.sentences(data.front, axes(data))) == []


@pytest.mark.parametrize("cpuinfo", [None, "flags: avx2", "flags: avx2 avx512_vnni"])
def test_the_lines_for_8_bit_inputs_run_on_any_system(cpuinfo, tmp_path):
    """Where there is no such file, or no VNNI in it, sums are asked to be exact."""
    file, asked = tmp_path / "cpuinfo", []
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    options = SimpleNamespace(add_session_config_entry=lambda *entry: asked.append(entry))
    exec(EXACT_SUMS, {"Path": lambda name: file, "options": options})
    exact = [("session.x64quantprecision", "1")]
    assert asked == ([] if cpuinfo and "_vnni" in cpuinfo else exact)
