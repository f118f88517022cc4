"""From a Hugging Face folder to exported subnets: a whole run, kills, and what is refused.

`tests/supernet/test_pretrained_*.py` compare the outputs with those of transformers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from latency.timing import TimingConfig
from nas.cli import main
from nas.config import load_config
from nas.deploy.generate import Generator
from nas.run import Run
from nas.stages.pretrained import give_start, open_start
from nas.stages.supernet import build_space, open_task
from nas.tasks.tokenizer import BpeTokenizer
from supernet.checkpoint import load_supernet, load_weights
from supernet.families import build_supernet
from tests.nas.short_protocol import short_timing
from tests.nas.test_resume import finish, kill_when
from tests.supernet import hugging_face

SMALL = [
    "training.steps=6",
    "training.warmup_steps=2",
    "training.threads=1",
    "training.log_every=2",
    "latency.mode=quick",
    "latency.correction_subnets=1",
    "search.budget=5",
    "search.front_size=2",
    "device=cpu-1t",
]
FEW = ["space.embed=[24]", "space.ffn=[40]", "latency.predictor=table"]
"""So that not much has to be exported and measured."""
WORDS = ("the ", "net ", "learns ", "größe ", "and\n", "of ", "<|end|>", "tokens ")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TimingConfig, "quick", classmethod(short_timing))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "eel"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")


@pytest.fixture
def vision(photos):
    """A checkpoint with classes of its own and a normalisation that is not the task's."""
    names = dict(enumerate(("eel", "cat", "dog")))
    theirs = hugging_face.vit(id2label=names, label2id={v: k for k, v in names.items()})
    theirs.save_pretrained("vit")
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
    Path("vit/preprocessor_config.json").write_text(json.dumps(processor))
    assert main(["init", "images", "--pretrained", "vit"]) == 0
    return theirs


@pytest.fixture
def language():
    """A checkpoint whose embedding has more rows than its tokenizer, which has special tokens."""
    rng = np.random.default_rng(0)
    Path("texts").mkdir()
    for index in range(12):
        text = "".join(rng.choice(WORDS, size=120))
        Path(f"texts/{index}.txt").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_str(
        BpeTokenizer.train([b"the net learns " * 9], vocabulary=262).to_json()
    )
    tokenizer.add_special_tokens(["<|end|>"])
    theirs = hugging_face.llama(vocab_size=272)
    theirs.save_pretrained("llama")
    tokenizer.save("llama/tokenizer.json")
    assert main(["init", "text", "--pretrained", "llama"]) == 0
    return theirs


def weights(directory):
    tensors, info = load_supernet(Path(directory) / "supernet.safetensors")
    return tensors, info


def started(config):
    """The supernet as its training starts, with its task."""
    task = open_task(config)
    torch.manual_seed(config.seed)
    model = build_supernet(build_space(config))
    give_start(config, task, model, open_start(config))
    return model.eval(), task


@torch.no_grad()
@pytest.mark.parametrize("order", [True, False])
def test_images_of_the_task_give_what_transformers_gives(vision, order):
    config = load_config("images.yaml", [f"training.importance_order={str(order).lower()}"])
    model, task = started(config)
    images, _ = next(iter(task.split("test")))
    how = task.record["normalisation"]
    mean, std = (torch.tensor(how[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = images * std + mean
    expected = vision((pixels - 0.5) / 0.5).logits[:, [1, 2, 0]]  # cat, dog, eel
    found = model(images, model.space.largest)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("order", [True, False])
def test_tokens_of_the_task_give_what_transformers_gives(language, order):
    config = load_config("text.yaml", [f"training.importance_order={str(order).lower()}"])
    model, task = started(config)
    assert task.vocabulary == 263
    tokens, _ = next(iter(task.split("test")))
    expected = language(tokens).logits[..., :263]
    found = model(tokens, model.space.largest)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.slow
def test_a_run_from_images_to_an_export(vision, capsys):
    assert main(["run", "images.yaml", *SMALL, *FEW]) in (0, 4)
    said = capsys.readouterr().err
    assert said.count("Started from vit: its head was kept, class by class; ") == 1
    directory = Path("runs/images")
    tensors, info = weights(directory)
    config = load_config(directory)
    assert info["pretrained"] == {
        "sha256": open_start(config).folder.digest,
        "importance_order": True,
    }
    assert info["space"]["norm_epsilon"] == 1e-12
    front = json.loads((directory / "front.json").read_text())
    assert front["subnets"]
    # Law 1, with the epsilon of the checkpoint: what ships is the subnet of the supernet.
    model = build_supernet(build_space(config))
    load_weights(model, tensors, source=directory)
    images, _ = next(iter(open_task(config).split("test")))
    for subnet in front["subnets"]:
        arch = model.space.architecture(subnet["architecture"])
        session = onnxruntime.InferenceSession(str(directory / subnet["export"]))
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, model.eval()(images, arch), rtol=1e-4, atol=1e-4)
    # Trained already: nothing is read again, though the folder is gone.
    shutil.rmtree("vit")
    assert main(["train", "images.yaml", *SMALL, *FEW]) == 0
    assert "Started from" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_from_text_to_an_export_that_writes(language):
    assert main(["run", "text.yaml", *SMALL, *FEW, "task.evaluation_tokens=256"]) in (0, 4)
    directory = Path("runs/text")
    name = json.loads((directory / "front.json").read_text())["subnets"][0]["export"]
    generate = Generator(directory / name)
    text = "the <|end|> net"
    (expected,) = BpeTokenizer.load(Path("llama/tokenizer.json")).encode([text.encode()])
    assert generate.encode(text) == expected.tolist()
    assert 262 not in generate.encode(text)
    assert generate.decode([*generate.encode(text), 262]) == text
    assert isinstance(generate(text, tokens=4), str)


@pytest.mark.slow
def test_a_killed_tuning_ends_with_the_same_weights_and_wants_the_same_checkpoint(
    tmp_path, vision, capfd
):
    overrides = [*SMALL, "training.steps=30", "training.checkpoint_every_s=0.01"]
    config = load_config("images.yaml", overrides)
    Path("my.yaml").write_text(config.to_yaml())
    finish(tmp_path, "train", "my.yaml", "output=alone")
    kill_when(tmp_path, Path("killed/training.safetensors").exists, 0.0)
    # Changed meanwhile, or gone: nothing is lost, and one line says so.
    saved = Path("vit/config.json").read_text()
    hugging_face.edit(Path("vit"), transformers_version="0")
    assert main(["train", "my.yaml", "output=killed"]) == 2
    assert "is of another training: pretrained.sha256 was" in capfd.readouterr().err
    Path("vit").rename("gone")
    assert main(["train", "my.yaml", "output=killed"]) == 2
    assert "training.pretrained vit is not a folder" in capfd.readouterr().err
    Path("gone").rename("vit")
    Path("vit/config.json").write_text(saved)
    finish(tmp_path, "train", "my.yaml", "output=killed")
    alone, killed = weights("alone"), weights("killed")
    assert alone[1]["hash"] == killed[1]["hash"]
    assert all(torch.equal(tensor, killed[0][name]) for name, tensor in alone[0].items())


def test_a_trained_supernet_keeps_what_it_was_trained_from(vision, capsys):
    overrides = [*SMALL, "training.steps=1", "training.warmup_steps=0"]
    assert main(["train", "images.yaml", *overrides]) == 0
    before = Path("runs/images/supernet.json").read_text()
    shutil.copytree("vit", "other")
    for change, message in (
        ("training.pretrained=other", 'training.pretrained is "other", but'),
        ("training.pretrained=null", "training.pretrained is null, but"),
        ("training.importance_order=false", "training.importance_order is false, but"),
    ):
        assert main(["train", "images.yaml", *overrides, change]) == 2
        assert message in capsys.readouterr().err
    hugging_face.edit(Path("vit"), transformers_version="0")
    assert main(["train", "images.yaml", *overrides]) == 2
    assert capsys.readouterr().err == (
        "nas train: training.pretrained vit has another content than when runs/images was trained "
        "from it; restore it, or give another directory with output=DIRECTORY\n"
    )
    assert Path("runs/images/supernet.json").read_text() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.pretrained=nowhere",
            "training.pretrained nowhere is not a folder; give one that",
        ),
        ("training.pretrained=photos", "photos/config.json does not exist; give a folder that"),
        ("space.embed=[8]", "space.embed ends with 8, but vit has 24; its largest choice must"),
        ("space.norm_epsilon=1e-5", "space.norm_epsilon is 1e-05, but vit has 1e-12"),
        ("task.channels=1", "task.channels is 1, but vit has 3; write task.channels: 3"),
        ("space.norm_epsilon=0", "space.norm_epsilon is 0"),
    ],
)
def test_what_does_not_fit_is_one_line(vision, capsys, override, message):
    assert main(["train", "images.yaml", *SMALL, override]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs/images/supernet.safetensors").exists()


def test_a_truncated_checkpoint_is_one_line(vision, capsys):
    path = Path("vit/model.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["train", "images.yaml", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "nas train: vit/model.safetensors is damaged or not a safetensors file" in error
    assert error.count("\n") == 1


def test_another_tokenizer_than_the_checkpoints(language, capsys):
    assert main(["train", "text.yaml", *SMALL, "task.tokenizer=bytes"]) == 2
    assert (
        "task.tokenizer is not the one of llama, to which the same tokens mean other texts; write "
        "task.tokenizer: llama/tokenizer.json" in capsys.readouterr().err
    )


def test_a_tokenizer_that_is_not_on_bytes(language, capsys):
    document = json.loads(Path("llama/tokenizer.json").read_text())
    document["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": True,
    }
    Path("llama/tokenizer.json").write_text(json.dumps(document))
    reason = "it marks spaces as SentencePiece does, and is not on bytes"
    for tokenizer in ("bytes", "llama/tokenizer.json"):
        assert main(["train", "text.yaml", *SMALL, f"task.tokenizer={tokenizer}"]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    assert "set task.tokenizer: bpe" in error  # of the task's own; the checkpoint's has no remedy


def test_the_folder_by_another_spelling_is_the_same(vision, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = [*SMALL, "training.steps=1", "training.warmup_steps=0"]
    with Run.open(load_config("images.yaml", [*overrides, "training.pretrained=~/vit"])) as run:
        assert open_start(run.config).folder.path == tmp_path / "vit"
