import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from search_spaces import DecoderSpace, UserError, VisionTransformerSpace, space_from_json
from supernet import checkpoint
from supernet.checkpoint import (
    content_hash,
    load_supernet,
    load_training,
    load_weights,
    named_tensors,
    save_supernet,
    save_training,
)
from supernet.families import build_supernet
from supernet.training import Trainer

ASSETS = Path(__file__).parents[1] / "assets"


def tiny_space(embed: tuple[int, ...] = (4, 8)) -> VisionTransformerSpace:
    return VisionTransformerSpace(
        image_size=4,
        patch_size=2,
        channels=1,
        num_classes=3,
        head_dim=2,
        embed=embed,
        depth=(1,),
        heads=(1, 2),
        ffn=(4, 8),
    )


def tiny_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_supernet(tiny_space())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "supernet.safetensors"


def test_a_supernet_comes_back_as_it_was(path: Path) -> None:
    model = tiny_model()
    digest = save_supernet(path, model, {"training": {"steps": 3}, "warnings": ["a"]})
    tensors, info = load_supernet(path)
    assert info["hash"] == digest
    assert info["family"] == "vit"
    assert info["schema"] == 1
    assert info["training"] == {"steps": 3}
    other = build_supernet(space_from_json(info["space"]))
    load_weights(other, tensors, source=path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "supernet.json",
        "supernet.safetensors",
    ]
    modes = {file.stat().st_mode for file in path.parent.iterdir()}
    assert len(modes) == 1


def test_the_hash_is_of_names_dtypes_shapes_bytes_and_space() -> None:
    space = {"family": "vit", "embed": [1]}
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    digest = content_hash(base, space)
    assert content_hash(dict(reversed(base.items())), dict(reversed(space.items()))) == digest
    others = [
        ({"a": torch.zeros(4), "c": torch.ones(2)}, space),
        ({"a": torch.zeros(2, 2), "b": torch.ones(2)}, space),
        ({"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)}, space),
        ({"a": torch.zeros(4), "b": torch.tensor([1.0, 2.0])}, space),
        (base, {"family": "vit", "embed": [2]}),
    ]
    assert len({digest, *(content_hash(*other) for other in others)}) == 6


def test_a_shared_tensor_is_saved_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(named_tensors(model)) == ["0.weight", "0.bias", "1.bias"]
    save_training(tmp_path / "t.safetensors", named_tensors(model), {})
    load_weights(model, load_training(tmp_path / "t.safetensors")[0], source=tmp_path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _not_safetensors(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x95 a pickle, say")


def _other_space(path: Path) -> None:
    record = json.loads(path.with_suffix(".json").read_text())
    record["space"]["embed"] = [4, 6, 8]
    path.with_suffix(".json").write_text(json.dumps(record))


def _broken_json(path: Path) -> None:
    path.with_suffix(".json").write_text('{"schema": 1, "ha')


def _no_hash(path: Path) -> None:
    path.with_suffix(".json").write_text('{"schema": 1, "space": {}, "family": "vit"}')


def _later_schema(path: Path) -> None:
    path.with_suffix(".json").write_text('{"schema": 2}')


def _json_list(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def _no_json(path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"supernet\.safetensors is damaged .* delete it and train again"),
        (_flip_a_bit, r"do not belong together: the content hash is .* train again"),
        (_not_safetensors, r"supernet\.safetensors is damaged or not a safetensors file"),
        (Path.unlink, r"supernet\.safetensors does not exist; train first"),
        (_other_space, r"do not belong together"),
        (_broken_json, r"supernet\.json is not valid JSON"),
        (_no_hash, r"supernet\.json has no entry 'hash'"),
        (_later_schema, r"schema 2, this version reads 1; update elastic-nas"),
        (_json_list, r"must hold a JSON object"),
        (_no_json, r"supernet\.json does not exist"),
    ],
)
def test_damage_is_one_clear_line(path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    save_supernet(path, tiny_model(), {})
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        load_supernet(path)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_change_nothing(path: Path) -> None:
    model = tiny_model()
    save_supernet(path, model, {})
    tensors, _ = load_supernet(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    missing = {name: value for name, value in tensors.items() if name != "head.linear.bias"}
    with pytest.raises(UserError, match=r"has no tensor 'head.linear.bias' \(1 missing\)"):
        load_weights(model, missing, source=path)
    with pytest.raises(UserError, match="a tensor 'extra' that the model lacks"):
        load_weights(model, {**tensors, "extra": torch.zeros(1)}, source=path)
    with pytest.raises(
        UserError, match=r"'head.linear.bias' in .* shape \(5,\), the model wants \(3,\)"
    ):
        load_weights(model, {**tensors, "head.linear.bias": torch.zeros(5)}, source=path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("failing", ["save_file", "fsync"])
def test_a_full_disk_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    digest = save_supernet(path, tiny_model(), {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint if failing == "save_file" else os, failing, full)
    with pytest.raises(UserError, match=r"cannot write .*No space left.*free space") as error:
        save_supernet(path, tiny_model(seed=1), {})
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert load_supernet(path)[1]["hash"] == digest
    assert len(list(path.parent.iterdir())) == 2


def test_a_path_that_is_no_directory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_training(tmp_path / "file" / "t.safetensors", {}, {})


def test_a_supernet_file_is_no_training_checkpoint(path: Path) -> None:
    save_supernet(path, tiny_model(), {})
    with pytest.raises(UserError, match="is not a training checkpoint"):
        load_training(path)


def test_training_state_keeps_dtypes_and_scalars(tmp_path: Path) -> None:
    tensors = {
        "step": torch.tensor(3.0),
        "rng": torch.arange(5, dtype=torch.uint8),
        "half": torch.ones(2, 3, dtype=torch.bfloat16).T,
    }
    save_training(tmp_path / "t.safetensors", tensors, {"step": 3})
    loaded, info = load_training(tmp_path / "t.safetensors")
    assert info == {"step": 3, "schema": 1}
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


@pytest.mark.parametrize("family", ["vit", "decoder"])
def test_released_files_still_open(family: str) -> None:
    """Written by version 0.1.0 with `write_assets` below; a released file is never rewritten."""
    path = ASSETS / f"supernet-{family}-v1.safetensors"
    tensors, info = load_supernet(path)
    model = build_supernet(space_from_json(info["space"]))
    load_weights(model, tensors, source=path)
    inputs = torch.ones(1, 1, 4, 4) if family == "vit" else torch.arange(4)[None]
    with torch.no_grad():
        logits = model(inputs, model.space.largest).flatten()
    torch.testing.assert_close(
        logits, torch.tensor(info["logits_of_largest"]), rtol=1e-4, atol=1e-5
    )


def asset_trainer(path: Path) -> Trainer:
    """A whole training of three steps, with every optional part of a checkpoint."""
    return Trainer(
        tiny_model(),
        lambda step: (torch.ones(2, 1, 4, 4) * step, torch.tensor([0, 1])),
        steps=3,
        ema=0.9,
        precision="fp32",
        checkpoint_path=path,
    )


def test_a_released_training_checkpoint_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    path.write_bytes((ASSETS / "training-v1.safetensors").read_bytes())
    trainer = asset_trainer(path)
    tensors, info = load_training(path)
    assert trainer.run().seconds == info["elapsed_s"]
    for index, parameter in enumerate(trainer.parameters):
        assert torch.equal(parameter, tensors[f"ema.{index}"])


def write_assets() -> None:
    """Write the files of the current format, for a release that changes it."""
    torch.manual_seed(0)
    decoder = DecoderSpace(
        vocabulary=5,
        context=8,
        head_dim=2,
        group=1,
        embed=(4,),
        depth=(1,),
        heads=(1,),
        ffn=(4,),
    )
    for space, inputs in (
        (tiny_space(), torch.ones(1, 1, 4, 4)),
        (decoder, torch.arange(4)[None]),
    ):
        model = build_supernet(space)
        with torch.no_grad():
            logits = model(inputs, space.largest).flatten().tolist()
        path = ASSETS / f"supernet-{space.family}-v1.safetensors"
        save_supernet(path, model, {"logits_of_largest": logits})
    asset_trainer(ASSETS / "training-v1.safetensors").run()


if __name__ == "__main__":
    write_assets()
