"""Fronts side by side: what can be compared, what cannot and why, tables, picture and page."""

import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from nas.search import hypervolume
from reports.compare_page import comparison_json, front_table, subnet_table, write_comparison
from reports.compare_svg import fronts_svg
from reports.comparison import MARGIN, compare
from search_spaces.errors import UserError
from tests.reports.fixture_run import (
    HOSTILE,
    break_measurement,
    build_lm_run,
    build_vit_run,
    poison,
    read,
    write,
)
from tests.reports.test_report_page import Page


def judged_on(run, digest="x"):
    write(run, "splits", read(run, "splits") | {"index_sha256": {"validation": digest}})
    return run


@pytest.fixture
def first(tmp_path):
    return judged_on(build_vit_run(tmp_path / "first", evaluated=60, size=8))


@pytest.fixture
def second(tmp_path):
    return judged_on(build_vit_run(tmp_path / "second", seed=1, evaluated=60, size=8))


def change(run, **values):
    """Replace keys of every subnet of the front."""
    front = read(run, "front")
    front["subnets"] = [subnet | values for subnet in front["subnets"]]
    write(run, "front", front)


def without_search(run):
    (run / "search.json").unlink()


def test_hypervolume_reaches_to_one_corner(first, second):
    found = compare([first, second])
    assert [axis.id for axis in found.shared] == ["error", "latency_ms"]
    points = [np.array(list(front.points.values())) for front in found.fronts]
    every = np.concatenate(points)
    low, high = every.min(axis=0), every.max(axis=0)
    assert found.corner == pytest.approx(high + MARGIN * (high - low))
    for front, at in zip(found.fronts, points, strict=True):
        assert len(at) == len(front.data.front.subnets)
        expected = hypervolume(at, ideal=low, reference=found.corner)
        assert front.hypervolume == pytest.approx(expected)
        assert 0 < front.hypervolume < 1
    assert found.notes == ()


def test_a_front_that_is_better_everywhere_leads(first, tmp_path):
    better = tmp_path / "better"
    shutil.copytree(first, better)
    front = read(better, "front")
    for subnet in front["subnets"]:
        measured = subnet["workloads"]["latency"]["measured_ms"]
        measured |= {key: 0.9 * measured[key] for key in ("median", "low", "high")}
    write(better, "front", front)
    a, b = compare([first, better]).fronts
    assert b.hypervolume > a.hypervolume
    assert (a.leading, b.leading) == (0, len(b.points))


def test_equal_fronts_are_equal(first, tmp_path):
    shutil.copytree(first, tmp_path / "copy")
    found = compare([first, tmp_path / "copy"])
    a, b = found.fronts
    assert (a.hypervolume, a.leading) == (b.hypervolume, b.leading)
    assert a.leading == len(a.points)
    assert len(found.subnets) == len(a.points)
    assert all(subnet.is_on_several for subnet in found.subnets)
    times = [subnet.latencies["latency"][0].ms for subnet in found.subnets]
    assert times == sorted(times)


def test_what_only_another_search_knows_is_predicted(first, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(first, other)
    front = read(other, "front")
    kept, left = front["subnets"][1:], front["subnets"][0]
    write(other, "front", front | {"subnets": kept})
    row = compare([first, other]).subnets[0]
    assert row.names == ("s00", None)
    measured, predicted = row.latencies["latency"]
    assert (measured.measured, predicted.measured) == (True, False)
    assert predicted.ms == left["workloads"]["latency"]["predicted_ms"]
    _, rows = subnet_table(compare([first, other]))
    assert rows[0][0].text.startswith("s00 0.")
    assert rows[0][1].text.startswith("~0.")
    without_search(other)
    assert row.architecture not in [one.architecture for one in compare([first, other]).subnets]


def test_quality_on_other_data_is_not_compared(first, second):
    judged_on(second, "y")
    found = compare([first, second])
    assert [axis.id for axis in found.shared] == ["latency_ms"]
    assert "error is not compared: the runs judge it on different validation" in found.notes[0]
    assert {(front.hypervolume, front.leading) for front in found.fronts} == {(None, None)}
    assert found.corner == ()


def test_other_calls_are_not_compared(first, second):
    table = read(second, "table")
    table["workloads"]["latency"] = {"batch": 64}
    write(second, "table", table)
    found = compare([first, second])
    assert [axis.id for axis in found.shared] == ["error"]
    assert found.notes == (
        "latency_ms is not compared: the runs time different calls under this name.",
    )
    assert all(not subnet.latencies for subnet in found.subnets)


def test_what_one_run_did_not_search_for_is_not_compared(first, second):
    front = read(second, "front")
    front["objectives"] = ["error", "macs"]
    write(second, "front", front)
    notes = " ".join(compare([first, second]).notes)
    assert "latency_ms is not compared: it is no objective of " in notes
    assert "macs is not compared: it is no objective of " in notes


def test_failed_measurements_are_left_out_and_a_device_without_any_is_told(first, second):
    break_measurement(second, 1)
    found = compare([first, second])
    assert "s01" not in found.fronts[1].points
    assert found.notes[0].endswith("1 of 8 subnets lack a figure, and are left out.")
    for index in range(8):
        break_measurement(second, index)
    found = compare([first, second])
    assert len(found.fronts[1].points) == 8
    assert found.notes[0].endswith("was not measured: its latency (ms) is predicted.")


def test_devices_of_one_run_and_single_fronts(first, second):
    for stage in ("front", "search", "table"):
        shutil.copy(first / f"{stage}.json", first / f"{stage}.cpu-1t.json")
    front = read(first, "front.cpu-1t")
    write(first, "front.cpu-1t", front | {"device": {"name": "cpu-1t"}})
    labels = [front.label.split("/")[-1] for front in compare([first]).fronts]
    assert labels == ["first on cpu", "first on cpu-1t"]
    found = compare([first / "front.cpu-1t.json", second, second / "front.json"])
    labels = [front.label.split("/")[-1] for front in found.fronts]
    assert labels == ["first on cpu-1t", "second on cpu"]


def test_other_supernets_are_told(first, second):
    for run, digest in ((first, "aa"), (second, "bb")):
        write(run, "front", read(run, "front") | {"supernet": digest})
    assert "different supernets" in compare([first, second]).notes[-1]


def test_equal_genes_of_other_networks_are_not_one_subnet(first, tmp_path):
    for name in ("copy", "wider"):
        shutil.copytree(first, tmp_path / name)
    supernet = read(first, "supernet")
    space = supernet["space"] | {"head_dim": 32, "ffn": [32]}
    write(tmp_path / "wider", "supernet", supernet | {"space": space})
    found = compare([first, tmp_path / "wider"])
    assert found.subnets == ()
    assert "networks of different head_dim: the same" in found.notes[-1]
    every = compare([first, tmp_path / "wider", tmp_path / "copy"]).subnets
    assert every
    assert all(one.names[1] is None and one.names[0] == one.names[2] for one in every)
    (tmp_path / "copy" / "supernet.json").unlink()
    assert compare([first, tmp_path / "copy"]).subnets


def test_mistakes(first, second, tmp_path):
    with pytest.raises(
        UserError, match=r"front\.json: one front only; name another run, or run this"
    ):
        compare([first, first / "front.json"])
    with pytest.raises(UserError, match=r"nix is no run directory and no front\.json; name"):
        compare([first, tmp_path / "nix"])
    (second / "front.json").unlink()
    with pytest.raises(UserError, match=r"second has no front\.json; nas run .*second makes it"):
        compare([first, second])
    other = build_lm_run(tmp_path / "lm", evaluated=30, size=4)
    with pytest.raises(UserError, match=r"lm on cpu cannot be compared: error is not compared"):
        compare([first, other])


def test_tables_and_json(first, second):
    found = compare([first, second])
    columns, rows = front_table(found)
    assert [column.label for column in columns][-2:] == ["Best error", "Best latency (ms)"]
    assert {len(row) for row in rows} == {len(columns)}
    document = comparison_json(found)
    assert document["objectives"] == ["error", "latency_ms"]
    assert document["fronts"][1]["hypervolume"] == found.fronts[1].hypervolume
    assert len(document["architectures"]) == len(found.subnets)


def test_a_picture_for_every_pair_of_objectives(tmp_path):
    runs = [
        judged_on(build_lm_run(tmp_path / str(seed), seed=seed, evaluated=40, size=5))
        for seed in range(6)
    ]
    found = compare(runs)
    root = ET.fromstring(fronts_svg(found, 1, 0))
    marks = [one for one in root.iter() if one.tag.endswith("title")]
    assert len(marks) == sum(len(front.points) for front in found.fronts)
    classes = {one.get("class") for one in root.iter() if (one.get("class") or "").startswith("fc")}
    assert classes == {"fc fc0", "fc fc1", "fc fc2", "fc fc3"}
    write_comparison(found, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert page.open == []
    assert page.count("svg") == 3
    assert page.count("script") == 0
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert "script-src 'none'" in policy


def test_markup_in_names_stays_text(first, second, tmp_path):
    for run in (first, second):
        poison(run)
    found = compare([first, second])
    write_comparison(found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert Page(text).open == []
    assert HOSTILE not in text
    assert Page(text).count("b") == 0
