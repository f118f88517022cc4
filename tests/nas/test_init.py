"""`nas init`: every template is a configuration of its own kind."""

import json
from pathlib import Path

import pytest

from nas.cli import main
from nas.cli.commands import TEMPLATES
from nas.config import load_config
from search_spaces import DecoderSpace, VisionTransformerSpace

KINDS = {
    "digits": "image-classification",
    "images": "image-classification",
    "stdlib-text": "language-modelling",
    "text": "language-modelling",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("task", TEMPLATES)
def test_a_template_is_valid(task, capsys):
    assert main(["init", task]) == 0
    path = Path(f"{task}.yaml")
    assert capsys.readouterr().out == f"configuration: {path}\nnext: nas run {path}\n"
    config = load_config(path)
    assert config.task.kind == KINDS[task]
    assert config.name == task
    assert config.output == f"runs/{task}"


@pytest.mark.parametrize("task", TEMPLATES)
def test_the_space_of_a_template_can_be_built(task):
    main(["init", task])
    config = load_config(f"{task}.yaml")
    space = config.space.model_dump(exclude={"family"})
    if config.task.kind == "image-classification":
        built = VisionTransformerSpace(
            image_size=config.task.image_size,
            channels=config.task.channels,
            num_classes=10,
            **space,
        )
    else:
        built = DecoderSpace(vocabulary=256, context=config.task.context, **space)
    assert built.size > 10_000
    for workload in config.calls.values():
        built.cost(built.largest, workload)


@pytest.mark.parametrize("task", TEMPLATES)
def test_every_line_of_a_template_is_explained_and_short(task, capsys):
    main(["init", task, "--output", "-"])
    text = capsys.readouterr().out
    assert text.startswith("# ")
    assert all(len(line) <= 100 for line in text.splitlines())
    for section in ("task:", "space:", "training:", "workloads:", "latency:", "search:"):
        assert f"\n{section}" in text


def test_a_file_of_the_users_is_kept(capsys):
    Path("digits.yaml").write_text("mine")
    assert main(["init", "digits"]) == 2
    assert Path("digits.yaml").read_text() == "mine"
    assert capsys.readouterr().err == (
        "nas init: digits.yaml exists and is kept; name another file with --output\n"
    )
    assert main(["init", "digits", "--output", "other.yaml"]) == 0


def test_a_missing_folder(capsys):
    assert main(["init", "digits", "--output", "no/a.yaml"]) == 2
    assert capsys.readouterr().err == (
        "nas init: no/a.yaml: there is no folder no; make it first\n"
    )


def test_json(capsys):
    assert main(["init", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["configuration"] == "digits.yaml"
    assert main(["init", "text", "--json", "--output", "-"]) == 0
    assert "language-modelling" in json.loads(capsys.readouterr().out)["yaml"]


def test_an_unknown_task(capsys):
    assert main(["init", "digit"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "digits" in error


@pytest.mark.parametrize(("task", "example"), [("digits", "digits"), ("stdlib-text", "text")])
def test_a_template_and_its_example_search_the_same_space(task, example):
    main(["init", task])
    template = load_config(f"{task}.yaml")
    shipped = load_config(Path(__file__).parents[2] / "examples" / f"{example}.yaml")
    assert template.space == shipped.space
    assert template.workloads == shipped.workloads
    assert template.search == shipped.search
    kept = {"training": {"threads"}, "task": {"evaluation_tokens"}}
    for section in kept:
        ours, theirs = (
            getattr(config, section).model_dump(exclude=kept[section])
            for config in (template, shipped)
        )
        assert ours == theirs


def test_the_comments_name_the_file_that_was_asked_for(capsys):
    main(["init", "images", "--output", "mine.yaml"])
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert "nas run mine.yaml" in text
    assert "images.yaml" not in text
