"""Which genes matter: shares as text, what the front takes, and what cannot be told."""

import pytest

from reports import load_run, page
from reports.genes import gene_table
from reports.page import render
from search_spaces.errors import UserError
from tests.reports.fixture_run import (
    add_importance,
    build_lm_run,
    build_vit_run,
    poison,
    read,
    write,
)


@pytest.fixture
def run(tmp_path):
    found = build_vit_run(tmp_path / "run", evaluated=60, size=8)
    add_importance(found)
    return found


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "var Plotly;")


def test_kinds_are_ordered_by_what_they_explain(run):
    table = gene_table(load_run(run))
    assert table.objectives == ("error", "latency")
    shares = [row.explained[0].share for row in table.kinds]
    assert shares == sorted(shares, reverse=True)
    assert [one.text for one in table.kinds[0].explained] == ["40 % [32, 48]", "40 %"]
    assert [one.text for one in table.together] == ["80 % [64, 96]", "80 %"]
    assert {row.explained[1].text for row in table.genes} == {"< 1 %"}
    assert not {"depth", "embed"} & {row.name for row in table.genes}
    assert "a model of 60 evaluations, which explains 90 %" in table.notes[0]


def test_what_the_front_takes(run):
    data = load_run(run)
    table = gene_table(data)
    choices = data.search.importance.choices
    rows = {row.name: row.taken for row in (*table.kinds, *table.genes)}
    assert table.subnets == tuple(subnet.name for subnet in data.front.subnets)
    for place, subnet in enumerate(data.front.subnets):
        genes = subnet.architecture
        for name in choices:
            taken = rows[name][place]
            if name not in genes:
                assert taken.text == ""
                continue
            assert taken.text == str(genes[name])
            level = choices[name].index(genes[name]) / (len(choices[name]) - 1)
            assert taken.level == pytest.approx(level)
        widths = [value for name, value in genes.items() if name.startswith("ffn.")]
        assert float(rows["ffn"][place].text) == pytest.approx(sum(widths) / len(widths), abs=0.5)


def test_of_precisions_the_most_frequent_is_told(run):
    search, front = read(run, "search"), read(run, "front")
    found = search["importance"]
    names = [f"precision.qkv.{layer}" for layer in range(3)]
    found["choices"] |= {name: ["w4", "w8", "fp32"] for name in names}
    for shares in found["objectives"].values():
        found["kinds"]["precision"] = names
        shares["kinds"]["precision"] = shares["single"]
        shares["genes"] |= dict.fromkeys(names, shares["single"])
    front["subnets"][0]["architecture"] |= dict(zip(names, ("w8", "fp32", "w8"), strict=True))
    write(run, "search", search)
    write(run, "front", front)
    row = next(row for row in gene_table(load_run(run)).kinds if row.name == "precision")
    assert (row.taken[0].text, row.taken[0].level) == ("w8", pytest.approx(2 / 3))
    assert row.taken[1].text == ""


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("r2", "evaluations", "reason"),
    [
        (0.3, 40, "a model of 40 evaluations explains 30 % of the variation of those left out"),
        (-2.0, 40, "a model of 40 evaluations explains 0 % of"),
        (None, 12, "12 evaluations are too few, 20 are needed"),
        (None, 50, "all evaluations are equal"),
    ],
)
def test_what_cannot_be_told_is_said(run, r2, evaluations, reason):
    add_importance(run, r2, evaluations)
    if r2 is None:
        search = read(run, "search")
        del search["importance"]["objectives"]["error"]
        write(run, "search", search)
    table = gene_table(load_run(run))
    assert table.objectives == ("latency",)
    assert f"Which genes matter for error cannot be told: {reason}" in " ".join(table.notes)
    assert reason in render(load_run(run))


@pytest.mark.usefixtures("_small")
def test_older_searches_have_no_such_section(tmp_path):
    run = build_vit_run(tmp_path / "run", evaluated=60, size=8)
    assert gene_table(load_run(run)) is None
    assert "Which genes matter" not in render(load_run(run))


@pytest.mark.usefixtures("_small")
def test_every_objective_has_a_column_and_text_is_escaped(tmp_path):
    run = build_lm_run(tmp_path / "lm", evaluated=60, size=4)
    add_importance(run)
    table = gene_table(load_run(run))
    assert table.objectives == ("bits per byte", "prefill latency", "decode latency")
    assert "Which genes matter" in render(load_run(run))
    poison(run, "<i>")
    assert "<i>" not in render(load_run(run))
    (run / "front.json").unlink()  # a search that was not exported yet
    assert gene_table(load_run(run)).subnets == ()


@pytest.mark.parametrize("where", ["genes", "kinds"])
def test_a_gene_that_is_missing_is_told(run, where):
    search = read(run, "search")
    del search["importance"]["objectives"]["error"][where]["depth"]
    write(run, "search", search)
    with pytest.raises(UserError, match=r"search\.json: importance lacks a gene of depth; run"):
        load_run(run)
