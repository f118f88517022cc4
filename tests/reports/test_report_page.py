"""The page as a whole: offline, safe, complete, and readable when stages are missing."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import load_run, page, render, write_report
from search_spaces.errors import UserError
from tests.reports.fixture_run import (
    HOSTILE,
    add_importance,
    break_measurement,
    build_lm_run,
    build_vit_run,
    poison,
    read,
    tell_more,
    write,
)

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, text outside scripts, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.data = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            if self.elements[-1][1].get("type") == "application/json":
                self.data += text
        elif self.open and self.open[-1] != "style":
            self.texts.append(text)

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def figures(self):
        return json.loads(self.data)


@pytest.fixture
def _small(monkeypatch):
    """Leave Plotly's 5 MB out where a test does not look at them."""
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "var Plotly;")


@pytest.fixture
def vit(tmp_path):
    return build_vit_run(tmp_path / "vit", evaluated=60, size=8)


@pytest.fixture
def lm(tmp_path):
    return build_lm_run(tmp_path / "lm", evaluated=60, size=8)


def test_page_refers_to_nothing_outside_itself(vit, tmp_path):
    write_report(vit, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    for tag, attributes in parsed.elements:
        assert tag not in {"link", "img", "iframe", "base", "object", "embed"}
        assert not {"src", "srcset", "action", "data", "background"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for _, a in parsed.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


@pytest.mark.parametrize(
    ("distillation", "caption"),
    [("kl", "the others from its outputs"), ("none", "All subnets learn from the labels.")],
)
def test_training_says_what_subnets_learn_from(vit, tmp_path, distillation, caption):
    run = tmp_path / "run"
    shutil.copytree(vit, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["training"] = {**config.get("training", {}), "distillation": distillation}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    parsed = Page(render(load_run(run)))
    text = parsed.text
    assert caption in text
    students = "labels" if distillation == "none" else "distilled"
    assert parsed.figures["training"]["students"] == students
    assert ("in-place distillation" in text) == (distillation == "kl")


@pytest.mark.usefixtures("_small")
def test_sections_of_a_vit_run(vit):
    text = Page(render(load_run(vit))).text
    for part in ("Quick protocol", "image classification", "front 8 out of", "s07", "±",
                 "exports/s03.onnx", "Kendall tau", "used to fit the correction", "No warnings",
                 "sha256", "Example 9000", "2.13.0", "40 rows"):  # fmt: skip
        assert part in text, part
    assert "There is no" not in text


@pytest.mark.usefixtures("_small")
def test_what_only_some_devices_tell(vit):
    without = Page(render(load_run(vit))).text
    tell_more(vit)
    text = Page(render(load_run(vit))).text
    for part in (
        "latency: energy mJ",
        "latency: peak memory",
        "1.50 KiB",
        "3 of 41 operations not on the Neural Engine: gather (CPU, 2), softmax (CPU)",
        "all 45 operations on the Neural Engine",
        "corrected for kinds of block, size and number of blocks; fitted on 8 whole subnets; "
        "standard deviation 1.2 %; cross-validated MAPE: table 1.2 %, ridge 3.4 %",
        "7 attention rows interpolated (pchip): 1.3 % off on average, 3.9 % at worst, on 4 held",
        "5 ffn rows interpolated, their error not measured",
    ):
        assert part in text, part
        assert part not in without, part
    assert "fixed rows" not in text


@pytest.mark.usefixtures("_small")
def test_lm_run_has_both_workloads_and_a_cache(lm):
    parsed = Page(render(load_run(lm)))
    for part in ("Measured prefill", "Measured decode", "decode: measured ms", "KV cache",
                 "standard protocol"):  # fmt: skip
        assert part in parsed.text, part
    assert "Quick protocol" not in parsed.text
    front = parsed.figures["front"]
    assert (front["x"], front["y"]) == ("prefill_ms", "bits_per_byte")
    assert [axis["id"] for axis in front["axes"]] == [
        "bits_per_byte", "prefill_ms", "decode_ms", "test", "macs", "parameters", "size_bytes",
        "kv_cache_bytes",
    ]  # fmt: skip


@pytest.mark.usefixtures("_small")
def test_failed_measurement_is_named_and_not_drawn(vit):
    break_measurement(vit, 1)
    parsed = Page(render(load_run(vit)))
    assert "Not measured on the device: s01" in parsed.text
    assert "rejected" in parsed.text
    front = parsed.figures["front"]["front"]
    assert front["measured"]["latency_ms"][1] is None
    assert front["predicted"]["latency_ms"][1] is not None
    assert front["ok"][1] is False


@pytest.mark.usefixtures("_small")
def test_empty_front_still_shows_the_search(vit):
    front = read(vit, "front")
    write(vit, "front", front | {"subnets": []})
    parsed = Page(render(load_run(vit)))
    assert "The front is empty" in parsed.text
    assert parsed.figures["front"]["dominated"]["text"]


@pytest.mark.usefixtures("_small")
def test_each_missing_file_is_named(vit):
    for path in vit.iterdir():
        if path.name != "front.json":
            path.unlink()
    text = Page(render(load_run(vit))).text
    for name in ("search.json", "table.json", "training.jsonl", "supernet.json",
                 "environment.json", "splits.json", "config.yaml"):  # fmt: skip
        assert f"There is no {name} in this run directory" in text


@pytest.mark.usefixtures("_small")
def test_a_run_that_is_not_finished_is_shown_as_far_as_it_is(vit):
    evaluated = len(read(vit, "search")["evaluated"])
    for gone, next_stage, shown in (
        ("front", "nas export comes next", f"out of {evaluated} evaluated"),
        ("search", "nas search comes next", "40 rows, quick protocol"),
        ("table", "nas measure makes the latency table", "No warnings"),
        ("supernet", "nas train goes on with the training", "4000 steps"),
    ):
        (vit / f"{gone}.json").unlink()
        parsed = Page(render(load_run(vit)))
        assert parsed.open == []
        assert f"This run is not finished: {next_stage}" in parsed.text
        assert shown in parsed.text
        assert f"There is no {gone}.json in this run directory" in parsed.text
        assert "The front is empty" not in parsed.text
        assert (parsed.figures["front"] is None) == (gone != "front")
    (vit / "training.jsonl").unlink()
    with pytest.raises(UserError, match=r"front\.json does not exist, .*; start with nas run"):
        load_run(vit)


@pytest.mark.usefixtures("_small")
def test_a_search_that_is_not_finished_is_shown(vit):
    search = read(vit, "search")
    part = {**search, "finished": False, "evaluated": search["evaluated"][:9], "front": [2, 5]}
    write(vit, "search-unfinished", part | {"selected": [2], "references": []})
    assert f"{len(search['evaluated'])} evaluated" in Page(render(load_run(vit))).text
    for gone in ("front", "search"):
        (vit / f"{gone}.json").unlink()
    parsed = Page(render(load_run(vit)))
    assert "This run is not finished: 9 subnets are evaluated, what is shown is " in parsed.text
    assert "2 not dominated so far (the search is not finished)" in parsed.text
    assert len(parsed.figures["front"]["spare"]["text"]) == 2
    assert len(parsed.figures["front"]["dominated"]["text"]) == 7
    write(vit, "search-unfinished", part | {"front": [], "selected": [], "references": []})
    parsed = Page(render(load_run(vit)))
    assert "9 subnets are evaluated, none within the bounds so far, and nas search" in parsed.text


@pytest.mark.usefixtures("_small")
def test_a_front_of_an_earlier_search_is_told(vit):
    search = read(vit, "search")
    found = [point["architecture"] for point in search["evaluated"]]
    exported = [found.index(one["architecture"]) for one in read(vit, "front")["subnets"]]
    for selected, told in ((exported, False), (exported[1:], True)):
        write(vit, "search", search | {"selected": selected})
        text = Page(render(load_run(vit))).text
        assert ("made anew since these subnets were exported" in text) is told


@pytest.mark.usefixtures("_small")
def test_how_a_subnet_is_used(vit, lm):
    assert "Use one of them" not in Page(render(load_run(vit))).text  # an older run: no script
    for run, script, told in ((vit, "classify.py", "0.3, 0.4"), (lm, "generate.py", "Generator")):
        write(run, "front", read(run, "front") | {"script": f"exports/{script}"})
        splits = read(run, "splits")
        fed = {"normalisation": {"mean": [0.3, 0.4, 0.5], "std": [1, 1, 1]}}
        write(run, "splits", splits | fed | {"image_size": 8, "channels": 3})
        text = Page(render(load_run(run))).text
        assert f"python exports/{script} exports/s" in text
        assert told in text
    write(vit, "splits", read(vit, "splits") | {"normalisation": None})
    assert "Use one of them" not in Page(render(load_run(vit))).text


@pytest.mark.usefixtures("_small")
def test_supernet_warnings_are_loud(vit):
    write(vit, "supernet", read(vit, "supernet") | {"warnings": ["uniform-3 is worse <b>"]})
    parsed = Page(render(load_run(vit)))
    assert "did not pass its sanity check uniform-3 is worse <b>" in parsed.text
    assert parsed.count("b") == 0


@pytest.mark.usefixtures("_small")
def test_markup_in_names_stays_text(vit):
    tell_more(vit)
    clean = Page(render(load_run(vit)))
    add_importance(vit)
    poison(vit)
    (vit / "config.yaml").write_text(f"name: {json.dumps(HOSTILE)}\nnote: {json.dumps(HOSTILE)}\n")
    text = render(load_run(vit))
    parsed = Page(text)
    assert parsed.open == []
    assert parsed.count("script") == clean.count("script") == 3
    assert parsed.count("b") == 0
    assert "<script>alert" not in text
    # Plotly reads tags in labels: in what it is given, they must be escaped once more.
    assert "<script" not in "".join(parsed.figures["front"]["front"]["text"])
    assert "&lt;script&gt;" in parsed.figures["front"]["front"]["text"][0]
    assert parsed.figures["latency"][0]["workload"].startswith("latency&lt;/script")


@pytest.mark.usefixtures("_small")
@settings(deadline=None, max_examples=10)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_text_breaks_the_page(tmp_path_factory, text):
    run = build_vit_run(tmp_path_factory.mktemp("any"), evaluated=12, size=3)
    poison(run, text)
    parsed = Page(render(load_run(run)))
    assert parsed.open == []
    assert parsed.count("script") == 3
    assert parsed.figures["front"]["front"]["name"]


@pytest.mark.usefixtures("_small")
def test_values_that_json_cannot_hold_are_left_out(vit):
    search = read(vit, "search")
    search["evaluated"][0]["values"][0] = float("nan")
    search["evaluated"][1]["values"][1] = float("inf")
    write(vit, "search", search)
    front = read(vit, "front")
    front["subnets"][0]["values"][0] = float("nan")
    write(vit, "front", front)
    figures = Page(render(load_run(vit))).figures
    assert "NaN" not in json.dumps(figures)


@pytest.mark.usefixtures("_small")
def test_second_device_of_a_directory(vit, tmp_path):
    for stage in ("front", "search", "table"):
        shutil.copy(vit / f"{stage}.json", vit / f"{stage}.cpu-1t.json")
    front = read(vit, "front.cpu-1t")
    front["device"]["name"] = "cpu-1t"
    write(vit, "front.cpu-1t", front)
    write_report(vit, tmp_path / "report.cpu-1t.html", "cpu-1t")
    assert "on cpu-1t" in Page((tmp_path / "report.cpu-1t.html").read_text()).text
    with pytest.raises(UserError, match=r"front\.pi\.json does not exist, .*; start with nas run"):
        write_report(vit, tmp_path / "x.html", "pi")


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [False, True])
def test_browser_draws_it_without_a_complaint(tmp_path, hostile):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    run = build_vit_run(tmp_path / "run", evaluated=60, size=8)
    add_importance(run)
    break_measurement(run)
    if hostile:
        poison(run)
    write_report(run, tmp_path / "report.html")
    switches = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                "disable-background-networking", "disable-component-update", "disable-sync",
                "enable-logging=stderr", "virtual-time-budget=8000", "dump-dom",
                f"user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    found = subprocess.run(
        [browser, *(f"--{switch}" for switch in switches), (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    complaints = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    figures = ("front-figure", "latency-figure", "residual-figure", "training-figure")
    for figure in figures:
        assert re.search(rf'id="{figure}" class="[^"]*js-plotly-plot', found.stdout), figure
