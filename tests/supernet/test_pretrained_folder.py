"""What is read of a checkpoint, and what is refused: pickles, damaged files, paths that leave."""

import json

import pytest
import torch
from safetensors.torch import save_file

from search_spaces import UserError
from supernet.pretrained.folder import PretrainedFolder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    return tmp_path


def index(folder, names):
    text = json.dumps({"weight_map": names})
    (folder / "model.safetensors.index.json").write_text(text)


def test_one_file(folder):
    found = PretrainedFolder.open(folder)
    assert found.tensors()["a"].tolist() == [1.0, 1.0]
    assert found.images is None
    assert found.tokenizer is None


def test_the_digest_is_of_the_content(folder):
    def digest():
        return PretrainedFolder.open(folder).digest

    first = digest()
    (folder / "README.md").write_text("of no account")
    assert digest() == first
    (folder / "preprocessor_config.json").write_text("{}")
    second = digest()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    third = digest()
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    assert len({first, second, third, digest()}) == 4


@pytest.mark.parametrize("name", ["absent", "config.json"])
def test_no_folder(folder, name):
    with pytest.raises(UserError) as error:
        PretrainedFolder.open(folder / name)
    assert str(error.value) == (
        f"training.pretrained {folder / name} is not a folder; give one that save_pretrained "
        "wrote, with config.json and model.safetensors (nothing is downloaded)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give a folder that save_pretrained wrote"),
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ("[" * 100_000, "is not valid JSON"),
        (b"\xff\xfe{", "is not valid JSON"),
    ],
)
def test_damaged_settings(folder, content, message):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        PretrainedFolder.open(folder)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_never_loaded(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError) as error:
        PretrainedFolder.open(folder).tensors()
    assert f"has its weights in {name}, a pickle" in str(error.value)
    assert "save_pretrained(FOLDER, safe_serialization=True)" in str(error.value)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has neither model.safetensors nor"):
        PretrainedFolder.open(folder).tensors()


@pytest.mark.parametrize("size", [0, 5, 40, -4])
def test_a_truncated_file(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as error:
        PretrainedFolder.open(folder).tensors()
    assert f"{path} is damaged or not a safetensors file" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(folder, value):
    weights = {"a": torch.tensor([1.0, value], dtype=torch.float16)}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"tensor 'a' in .* holds NaN or infinity"):
        PretrainedFolder.open(folder).tensors()


def test_a_part_that_is_missing(folder):
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index(folder, {"a": "part-1.safetensors"})
    assert set(PretrainedFolder.open(folder).tensors()) == {"a"}
    index(folder, {"a": "part-1.safetensors", "b": "part-2.safetensors"})
    for read in (lambda found: found.tensors(), lambda found: found.digest):
        with pytest.raises(UserError, match=r"part-2.safetensors"):
            read(PretrainedFolder.open(folder))


@pytest.mark.parametrize(
    "names", [{}, [], None, {"a": "../model.safetensors"}, {"a": "/etc/passwd"}, {"a": 3}]
)
def test_an_index_that_leaves_its_folder_or_names_nothing(folder, names):
    (folder / "model.safetensors").unlink()
    index(folder, names)
    with pytest.raises(UserError, match="does not map tensors to files of its folder"):
        PretrainedFolder.open(folder).tensors()
