"""Configuration: loading, defaults, overrides, and every message."""

import dataclasses
import inspect
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.config import (
    AugmentConfig,
    ClusterConfig,
    Config,
    ImageTaskConfig,
    LanguageTaskConfig,
    check_same_supernet,
    load_config,
    validate,
)
from nas.config.messages import known_keys
from search_spaces import Workload
from search_spaces.errors import UserError

IMAGES = """
output: runs/digits
task: {kind: image-classification, data: digits}
space: {embed: [32, 64], depth: [2, 4], heads: [1, 2], ffn: [32, 64]}
"""
TEXT = """
output: runs/text
task: {kind: language-modelling, data: stdlib}
space: {group: 2, embed: [32, 64], depth: [2, 4], heads: [2, 4], ffn: [32, 64]}
"""


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(IMAGES)
    return Path("my.yaml")


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(TEXT)
    return Path("my.yaml")


def message(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def test_defaults_follow_from_the_image_task(images):
    config = load_config(images)
    assert config.space.family == "vit"
    assert config.search.objectives == ("error", "latency_ms")
    assert config.calls == {"latency": Workload(batch=1)}
    assert config.output_path == Path.cwd() / "runs" / "digits"


def test_defaults_follow_from_the_language_task(text):
    config = load_config(text, ["task.context=64"])
    assert config.space.family == "decoder"
    assert config.search.objectives == ("bits_per_byte", "prefill_ms", "decode_ms")
    assert config.calls == {
        "prefill": Workload(sequence=64),
        "decode": Workload(sequence=1, past=63),
    }


def test_defaults_follow_from_the_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, text = Path("images.yaml"), Path("text.yaml")
    images.write_text(IMAGES)
    text.write_text(TEXT)
    Path("devices").mkdir()
    calls = "{many: {batch: 8}, prompt: {sequence: 32}, token: {past: 31}}"
    Path("devices/board.yaml").write_text(f"workloads: {calls}\n")
    config = load_config(images, device="board")
    assert config.calls == {"many": Workload(batch=8)}
    assert config.search.objectives == ("error", "many_ms")
    assert load_config(images, ["device=board"]).calls == config.calls
    named = load_config(images, ["workloads={one: {batch: 1}}"], device="board")
    assert named.calls == {"one": Workload(batch=1)}
    assert load_config(text, device="board").calls == {
        "prompt": Workload(sequence=32),
        "token": Workload(sequence=1, past=31),
    }
    with pytest.raises(UserError, match=r"board has prompt, a call of 32 tokens, .*context is 16;"):
        load_config(text, ["task.context=16"], device="board")
    assert load_config(images, device="nobody").calls == {"latency": Workload()}


def test_objectives_follow_named_workloads(images):
    config = load_config(images, ["workloads={one: {batch: 1}, many: {batch: 32}}"])
    assert config.search.objectives == ("error", "one_ms", "many_ms")
    assert "many_ms" in config.objectives


@pytest.mark.parametrize("source", [IMAGES, TEXT])
def test_round_trip(tmp_path, source):
    first = tmp_path / "a.yaml"
    first.write_text(source + "name: 'Ünïcode: #1 \"quoted\"'\n")
    config = load_config(first, ["training.learning_rate=1e-5", "search.bounds=macs <= 1e6"])
    second = tmp_path / "b.yaml"
    second.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(second)
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@settings(deadline=None, max_examples=30)
@given(
    name=st.text(min_size=1, max_size=20).filter(str.strip),
    rate=st.floats(min_value=1e-12, max_value=1e3),
    embed=st.sets(st.integers(1, 4096), min_size=1, max_size=5),
    seed=st.integers(0, 2**63),
)
@example(name="0E0", rate=1e-5, embed={1}, seed=0)
def test_round_trip_of_any_values(name, rate, embed, seed):
    data = {
        "name": name,
        "seed": seed,
        "output": "o",
        "task": {"kind": "image-classification", "data": "digits"},
        "space": {"embed": sorted(embed), "depth": [1], "heads": [1], "ffn": [1]},
        "training": {"learning_rate": rate},
    }
    from latency.yaml_source import parse_yaml

    config = validate(data, "test")
    assert validate(parse_yaml(config.to_yaml(), "test"), "test") == config


def test_config_is_frozen(images):
    config = load_config(images)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_later_overrides_win_and_make_sections(images):
    config = load_config(images, ["training.steps=3", "training.steps=5", "latency.mode=standard"])
    assert config.training.steps == 5
    assert config.latency.mode == "standard"


def test_exponents_without_a_point_are_numbers(images):
    assert load_config(images, ["training.learning_rate=2e-3"]).training.learning_rate == 2e-3


def test_one_bound_needs_no_list(images):
    assert load_config(images, ["search.bounds=latency_ms <= 5"]).search.bounds == (
        "latency_ms <= 5",
    )


def test_a_run_directory_is_a_configuration(images):
    directory = Path("moved")
    directory.mkdir()
    (directory / "config.yaml").write_text(load_config(images).to_yaml())
    assert load_config(directory).output == "moved"
    assert load_config(directory, ["output=else"]).output == "else"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "training.stepz=3",
            "command line: training.stepz is not a known key; did you mean training.steps?",
        ),
        (
            "search.algorithm=nsga9",
            'command line: search.algorithm is "nsga9": it must be one of auto, age-moea2, ',
        ),
        (
            "search.fidelities=[0.25,1]",
            "command line: search.fidelities[1] is 1; it must be less than 1",
        ),
        (
            "search.fidelities=[0]",
            "command line: search.fidelities[0] is 0; it must be more than 0",
        ),
        (
            "search.fidelities=[0.5,0.25]",
            "command line: search.fidelities is [0.5, 0.25]: it must be increasing; write "
            "[0.25, 0.5]",
        ),
        ("search.fidelities=0.25", "command line: search.fidelities is 0.25; it must be a list"),
        ("steps=3", "command line: steps is not a known key; did you mean training.steps?"),
        ("trainin.steps=3", "command line: trainin is not a known key; did you mean training?"),
        (
            "task.context=3",
            "command line: task.context is not a known key; known here: kind, data, image_size, "
            "channels, augment, batch_size, evaluation_batch_size, split, split_seed",
        ),
        (
            "workloads.latency.batches=3",
            "command line: workloads.latency.batches is not a known key; did you mean "
            "workloads.latency.batch?",
        ),
        ("training.steps=-1", "command line: training.steps is -1; it must be at least 1"),
        ("training.steps=true", "command line: training.steps is true; it must be a whole number"),
        ("training.steps=1.5", "command line: training.steps is 1.5; it must be a whole number"),
        ("training.steps='5'", 'command line: training.steps is "5"; it must be a whole number'),
        ("training.ema=2", "command line: training.ema is 2; it must be less than 1"),
        (
            "training.learning_rate=.nan",
            "command line: training.learning_rate is NaN; it must be a finite number",
        ),
        (
            "training.precision=fp16",
            'command line: training.precision is "fp16"; it must be one of auto, fp32 or bf16',
        ),
        ("training.compile=1", "command line: training.compile is 1; it must be true or false"),
        ("training=3", "command line: training is 3; it must be a section of keys"),
        (
            "training.steps.a=3",
            'command line: training.steps is {"a": 3}; it must be a whole number',
        ),
        ("output=5", 'command line: output is 5; it must be text, so put it in quotes: "5"'),
        (
            "space.embed=[64,32]",
            "command line: space.embed is [64, 32]: it must be increasing; write [32, 64]",
        ),
        (
            "space.embed=[32,32]",
            "command line: space.embed is [32, 32]: it must be increasing; write [32]",
        ),
        ("space.embed=[]", "command line: space.embed is []; it must be at least 1 long"),
        (
            "space.embed=[32,a]",
            'command line: space.embed[1] is "a"; it must be a whole number',
        ),
        (
            "space.embed=[99999999999999999999]",
            "command line: space.embed[0] is 99999999999999999999; it must be at most 2147483647",
        ),
        (
            "search.a=1",
            "command line: search.a is not a known key; known here: objectives, bounds, budget, "
            "algorithm, population, min_gain, max_seconds, fidelities, front_size",
        ),
        (  # PyTorch would crash
            "training.threads=100000",
            "command line: training.threads is 100000; it must be at most 1024",
        ),
        (
            "space.depth=[1000000]",
            "command line: space.depth[0] is 1000000; it must be at most 1000",
        ),
        (
            'output="a\\0b"',
            'command line: output is "a\\u0000b": it holds a null character, which no path does; '
            "remove it",
        ),
        ("space.embed=[0]", "command line: space.embed[0] is 0; it must be at least 1"),
        (
            "space.precision=[w8]",
            'command line: space.precision is ["w8"]: it lacks fp32, which the others are compared '
            "with; add it",
        ),
        (
            "space.precision=[fp32,int8]",
            'command line: space.precision[1] is "int8"; it must be one of fp32, fp16, bf16, w8, '
            "w8a8, w8a8_dynamic, w4 or w4_nbits",
        ),
        (
            "training.policy_steps=200",
            "my.yaml with the command line: training.policy_steps is 200, but space.precision has "
            "no scheme beside fp32; name some, such as [fp32, w4], or leave policy_steps out",
        ),
        (
            "space.precision_ends=[head]",
            "my.yaml with the command line: space.precision_ends is ['head'], but space.precision "
            "has no scheme beside fp32; name some, such as [fp32, w8], or leave precision_ends out",
        ),
        ("space.embed=64", "command line: space.embed is 64; it must be a list, such as [1, 2]"),
        (
            "space.patch_size=3",
            "my.yaml with the command line: space.patch_size is 3, which does not divide "
            "task.image_size 8; change one of them",
        ),
        (
            "task.augment.shift=8",
            "my.yaml with the command line: task.augment.shift is 8 pixels, but task.image_size "
            "is 8, so that nothing of an image is left; lower it",
        ),
        (
            "space.family=decoder",
            "my.yaml with the command line: space.family is decoder, but task.kind "
            "image-classification needs vit; leave space.family out",
        ),
        (
            "task.split=[0.5,0.5,0.5]",
            "command line: task.split is [0.5, 0.5, 0.5]: it must add up to 1, not 1.5; write "
            "[0.6, 0.2, 0.2], say",
        ),
        (
            "task.kind=image",
            'command line: task.kind is "image"; it must be one of image-classification, '
            "language-modelling",
        ),
        ("search.objectives=[]", "command line: search.objectives is []; it must be at least 1 lo"),
        (
            "search.objectives=[errors]",
            "my.yaml with the command line: search.objectives: errors is not a known objective; "
            "did you mean error?",
        ),
        (
            "search.objectives=[accuracy]",
            "my.yaml with the command line: search.objectives: accuracy is not an objective, "
            "since all are minimised; use error, which is 1 - it",
        ),
        (
            "search.objectives=[bits_per_byte]",
            "my.yaml with the command line: search.objectives: bits_per_byte is not a known "
            "objective; known: error, cross_entropy, latency_ms, macs, parameters, size_bytes, ",
        ),
        (
            "search.objectives=[error,error]",
            "my.yaml with the command line: search.objectives is ['error', 'error']: a name "
            "occurs twice; name each once",
        ),
        (
            "workloads.latency.past=3",
            "my.yaml with the command line: workloads.latency has sequence or past, which are "
            "for language models; give an image workload batch alone",
        ),
        (
            "workloads.a-b.batch=1",
            'command line: workloads.a-b is "a-b"; it must be a plain name of letters, digits',
        ),
        ("device=a/b", 'command line: device is "a/b"; it must be a plain name of letters'),
        ("training.steps", "training.steps is not an override; write KEY=VALUE, as "),
        ("=3", "=3 is not an override; write KEY=VALUE, as training.steps=100"),
        ("training.steps=[1", "command line: training.steps, line 1: expected ',' or ']'"),
        (
            "seed.a=3",
            "command line: seed is {",
        ),
    ],
)
def test_messages_of_overrides(images, override, expected):
    assert message(images, override).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("space.heads=[3]", "space.heads has 3, which is not a multiple of space.group 2"),
        ("space.head_dim=15", "space.head_dim is 15, but rotary positions need an even number"),
        ("task.vocabulary=300", "task.vocabulary is 300, but the tokenizer bytes has 256 tokens"),
        ("task.tokenizer=words", "task.tokenizer is words; it must be bytes, bpe, or the .json"),
        ("workloads={w: {batch: 1}}", "workloads.w has neither sequence nor past; give sequence"),
        ("workloads={w: {past: 128}}", "workloads.w is 129 tokens long, but task.context is 128"),
        ("space.patch_size=2", "space.patch_size is not a known key; known here: family, head_"),
    ],
)
def test_messages_of_language_models(text, override, expected):
    assert expected in message(text, override)


def test_bounds_are_checked(images):
    line = message(images, "search.bounds=[latenc_ms <= 5]")
    assert line.startswith("my.yaml with the command line: search.bounds: bound 'latenc_ms <= 5'")
    assert "did you mean latency_ms?" in line


def test_a_mistake_in_the_file_names_the_file(images):
    images.write_text(IMAGES + "training: {stepz: 3}\n")
    assert message(images, "seed=3") == (
        "my.yaml: training.stepz is not a known key; did you mean training.steps?"
    )


def test_missing_keys_are_explained(images):
    images.write_text("output: o\nspace: {embed: [1], depth: [1], heads: [1], ffn: [1]}\n")
    assert message(images).startswith("my.yaml: task is missing; add it: The data")
    images.write_text("output: o\ntask: {data: digits}\n")
    assert message(images) == (
        "my.yaml: task.kind is missing; it must be one of image-classification, language-modelling"
    )
    images.write_text(IMAGES.replace("output: runs/digits", ""))
    assert message(images).startswith("my.yaml: output is missing; add it: The run directory")


def test_several_problems_are_counted(images):
    line = message(images, "training.steps=0", "training.log_every=0", "seed=-1")
    assert line == "command line: seed is -1; it must be at least 0 (and 2 more problems)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [1, 2", "my.yaml, line 1: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "my.yaml, line 2: found character"),
        (
            "seed: 1\nname: a\nseed: 2\n",
            "my.yaml, line 3: the key seed is there twice, first in line 1; keep one",
        ),
        (
            "training:\n  steps: 1\n  steps: 2\n",
            "my.yaml, line 3: the key steps is there twice, first in line 2; keep one",
        ),
        ("", "my.yaml is empty; write one with: nas init digits --output NEW.yaml"),
        ("- 1\n", "my.yaml holds no keys"),
        ("3: 4\n", "my.yaml: the key 3 is not text"),
        ("a: !!python/object:os.system {}\n", "my.yaml, line 1: could not determine a constr"),
        ("a: *b\n", "my.yaml, line 1: found undefined alias"),
        ("a: 2024-99-99\n", "my.yaml is not valid YAML: month must be in 1..12"),
        ("\x00", "my.yaml is not valid YAML: unacceptable character"),
    ],
)
def test_yaml_mistakes(images, content, expected):
    images.write_text(content)
    assert message(images).startswith(expected)


def test_files_that_are_not_there_or_not_text(images, tmp_path):
    assert message("no.yaml") == (
        "no.yaml does not exist; write one with: nas init digits --output no.yaml"
    )
    assert message(tmp_path).endswith(
        "config.yaml does not exist; that folder is not a run directory; give a YAML file or a "
        "run directory"
    )
    images.write_bytes(b"\xff\xfe\x00\x01")
    assert message(images) == "my.yaml is not UTF-8 text; give a YAML file or a run directory"


def test_every_field_is_described():
    for kind in ("image-classification", "language-modelling"):
        for key, field in known_keys({"task": {"kind": kind}, "workloads": {"w": {}}}).items():
            assert field.description, key


def test_task_keys_are_those_of_the_tasks():
    from nas.tasks.augment import Augmentation
    from nas.tasks.images import ImageClassification
    from nas.tasks.language import LanguageModelling

    for section, task in (
        (ImageTaskConfig, ImageClassification),
        (LanguageTaskConfig, LanguageModelling),
    ):
        parameters = inspect.signature(task).parameters
        assert set(section.model_fields) - {"kind"} == set(parameters) - {"seed"}
        for name, field in section.model_fields.items():
            if name not in ("kind", "data", "augment"):
                assert field.default == parameters[name].default, name
    assert AugmentConfig().model_dump() == dataclasses.asdict(Augmentation())


def test_a_trained_directory_keeps_its_settings(images):
    config = load_config(images)

    def changed(*overrides: str) -> Config:
        return load_config(images, overrides)

    for free in (
        "device=cpu-1t",
        "search.budget=7",
        "latency.mode=standard",
        "workloads.latency.batch=8",
        "training.log_every=3",
        "training.checkpoint_every_s=9",
        "task.data=./digits",
        "name=other",
        "space.precision=[fp32, w8]",
    ):
        check_same_supernet(changed(free), config, "runs/digits")
    for fixed, expected in (
        (
            "training.steps=7",
            "training.steps is 7, but runs/digits was trained with 2000; give another directory "
            "with output=DIRECTORY, or delete runs/digits",
        ),
        ("space.depth=[2]", "space.depth is [2], but runs/digits was trained with [2, 4]"),
        ("seed=1", "seed is 1, but runs/digits was trained with 0"),
        (
            "task.augment.flip=true",
            "task.augment.flip is true, but runs/digits was trained with false",
        ),
    ):
        with pytest.raises(UserError) as caught:
            check_same_supernet(changed(fixed), config, "runs/digits")
        assert str(caught.value).startswith(expected)


def test_a_cluster_is_off_until_it_is_asked_for(images):
    assert load_config(images).cluster is None
    cluster = load_config(images, ["cluster.address=auto", "cluster.workers=3"]).cluster
    assert cluster == ClusterConfig(address="auto", workers=3)
    assert (cluster.cpus, cluster.timeout_s) == (None, 60.0)
    assert load_config(images, ["cluster={address: '10.0.0.5:6379'}"]).cluster is not None
    assert load_config(images, ["cluster.address=auto", "cluster=null"]).cluster is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "cluster.address=10.0.0.5",
            'cluster.address is "10.0.0.5": it must be local, auto, or HOST:PORT of a Ray '
            "cluster, such as 10.0.0.5:6379",
        ),
        ("cluster.address=a:70000", 'cluster.address is "a:70000": it must be local, auto, or'),
        ("cluster=local", 'cluster is "local"; it must be a section of keys'),
        ("cluster.workers=2", "cluster.address is missing; add it: local starts Ray on this host"),
        (
            "cluster={address: local, workers: 33}",
            "cluster.workers is 33; it must be at most 32",
        ),
        (
            "cluster={address: local, worker: 3}",
            "cluster.worker is not a known key; did you mean cluster.workers?",
        ),
    ],
)
def test_messages_of_a_cluster(images, override, expected):
    assert message(images, override).partition(": ")[2].startswith(expected)
