"""Precision policies in the report: squares, costs against others, the picture of sensitivities."""

import xml.etree.ElementTree as ET

import pytest

from reports import load_run, sections
from reports.page import render
from reports.policies import policy_table, squares
from reports.sensitivity_svg import WIDTH, sensitivity_svg
from reports.shapes import PARTS, limits
from reports.stages import Sensitivities
from search_spaces.schemes import SCHEMES
from tests.reports.fixture_run import add_policies, build_lm_run, build_vit_run, poison

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def run(tmp_path):
    return build_vit_run(tmp_path / "run", evaluated=60, size=8)


def test_without_policies_there_is_nothing_of_them(run):
    data = load_run(run)
    assert policy_table(data)[1] == []
    page = render(data)
    assert "Precision policies" not in page
    assert "se-cell" not in page


@pytest.mark.parametrize("build", [build_vit_run, build_lm_run])
def test_a_run_with_policies_shows_them(tmp_path, build):
    data = load_run(_with_policies(build(tmp_path / "run", evaluated=60, size=8)))
    columns, rows = policy_table(data)
    assert len(rows) == len(data.front.subnets)
    labels = [column.label for column in columns]
    assert labels.count("of uniform fp32") == 1 + len(data.workloads)
    assert labels.count("of uniform w8a8") == 1 + len(data.workloads)
    assert {len(row) for row in rows} == {len(columns)}
    texts = [cell.text for cell in rows[0]]
    assert texts[2:4] == ["33 %", "133 %"]  # a third of fp32, of which int8 has a quarter
    assert texts[5:7] == ["80 %", "125 %"]
    page = render(data)
    assert "Precision policies" in page
    assert "stem w8, head fp32" in page
    assert "se-cell" in page


def _with_policies(run):
    add_policies(run)
    return run


def test_every_linear_layer_has_a_square(run):
    add_policies(run)
    data = load_run(run)
    most = limits(subnet.architecture for subnet in data.front.subnets)
    for card, subnet in zip(
        [card for card in sections.cards(data, most) if not card.reference],
        data.front.subnets,
        strict=True,
    ):
        kept = sum(layer.kept for layer in card.layers)
        assert len({(one.layer, one.row) for one in card.policy}) == 4 * kept
        for square in card.policy:
            part = list(PARTS)[square.row]
            scheme = SCHEMES[subnet.architecture[f"precision.{part}.{square.layer}"]]
            assert square.bits == scheme.weight_bits
            assert square.integer_inputs == (scheme.activations != "float")
            assert square.text.endswith(scheme.name)


def test_a_scheme_of_another_version_is_shown_as_it_is():
    (square,) = squares({"precision.qkv.0": "w2"})
    assert (square.bits, square.integer_inputs) == (0, False)
    assert square.text == "layer 0, query, key, value: w2"


@pytest.mark.parametrize("layers", [1, 5, 40])
@pytest.mark.parametrize("schemes", [("w8a8",), tuple(SCHEMES)])
def test_the_picture_has_a_cell_for_each_loss_within_its_frame(layers, schemes):
    losses = {
        f"precision.{part}.{layer}": dict.fromkeys(schemes, 0.001 * (1 + layer))
        for layer in range(layers)
        for part in PARTS
    }
    root = ET.fromstring(sensitivity_svg(Sensitivities(subnet="largest", losses=losses)))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    cells = [one for one in root.iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]
    names = {one.find(f"{SVG}title").text for one in cells}
    shown = [name for name in schemes if name != "fp32"]
    assert len(names) == len(cells) == 4 * layers * len(shown)
    assert any(name.startswith("layer 0, FFN in, w8a8: 0.001 nats") for name in names)
    assert width == WIDTH
    for cell in cells:
        assert float(cell.attrib["x"]) + float(cell.attrib["width"]) <= width
        assert float(cell.attrib["y"]) + float(cell.attrib["height"]) <= height


def test_stem_and_head_are_rows_of_their_own():
    losses = {"precision.head": {"w8": 1e-3}, "precision.qkv.0": {"w8": 1e-2}}
    root = ET.fromstring(sensitivity_svg(Sensitivities(subnet="largest", losses=losses)))
    titles = [one.text for one in root.iter(f"{SVG}title")]
    assert titles == ["layer 0, query, key, value, w8: 0.01 nats", "head, w8: 0.001 nats"]
    labels = [one.text for one in root.iter(f"{SVG}text")]
    assert labels.index("layer 0") < labels.index("head")
    assert "stem" not in labels
    alone = {"precision.head": {"w8": 1e-3}}
    assert "head, w8" in sensitivity_svg(Sensitivities(subnet="largest", losses=alone))


def test_a_larger_loss_is_darker():
    losses = {
        f"precision.qkv.{layer}": {"w8": loss} for layer, loss in enumerate((1e-4, 1e-3, 1e-2, 0.5))
    }
    root = ET.fromstring(sensitivity_svg(Sensitivities(subnet="largest", losses=losses)))
    shades = [
        float(one.attrib["fill-opacity"])
        for one in root.iter(f"{SVG}rect")
        if one.find(f"{SVG}title") is not None
    ]
    assert shades == sorted(set(shades))
    assert shades[-1] == 1


def test_no_picture_of_nothing():
    assert sensitivity_svg(Sensitivities(subnet="largest")) == ""
    nothing = {"precision.qkv.0": {"w8": 0.0, "fp32": 0.0, "w4": None}}
    assert sensitivity_svg(Sensitivities(subnet="largest", losses=nothing)) == ""


def test_what_files_say_is_escaped(run):
    add_policies(run, ("fp32", "<b>w9</b>"))
    poison(run, "<i>")
    page = render(load_run(run))
    assert "<b>w9" not in page
    assert "<i>" not in page
