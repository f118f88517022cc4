"""Law 6 for vision transformers: the largest subnet gives the outputs of transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from search_spaces import UserError, VisionTransformerSpace
from supernet.families import build_supernet
from supernet.pretrained import Normalisation, load_pretrained, open_pretrained
from tests.supernet import hugging_face

torch.set_num_threads(1)
CLASSES = tuple("abcde")


def space(**changes):
    fields = {
        "image_size": 8,
        "patch_size": 4,
        "channels": 3,
        "num_classes": 5,
        "head_dim": 8,
        "embed": (8, 24),
        "depth": (1, 3),
        "heads": (1, 3),
        "ffn": (16, 40),
        "norm_epsilon": 1e-12,
        **changes,
    }
    return VisionTransformerSpace(**fields)


def images(size=8, channels=3):
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(2))


def imported(folder, wanted=None, **changes):
    torch.manual_seed(0)
    model = build_supernet(wanted or space()).eval()
    notes = load_pretrained(model, open_pretrained(folder), **{"classes": CLASSES, **changes})
    return model, notes


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_largest_subnet_is_the_network(tmp_path):
    theirs = hugging_face.vit()
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path)
    expected = theirs(images()).logits
    assert expected.std() > 0.1
    close(model(images(), model.space.largest), expected)
    close(model.extract(model.space.largest)(images()), expected)
    assert notes == ["its head was kept; its classes have no names, only an order"]


@torch.no_grad()
def test_an_unknown_normalisation_is_told(tmp_path):
    hugging_face.vit().save_pretrained(tmp_path)
    plain, _ = imported(tmp_path)
    task = Normalisation(mean=(0.1, 0.7, 0.45), std=(0.4, 0.5, 0.15))
    model, notes = imported(tmp_path, normalisation=task)
    assert notes[-1] == (
        "no preprocessor_config.json: it is taken to know images normalised as they are here"
    )
    assert torch.equal(model.stem.patches.weight, plain.stem.patches.weight)


@torch.no_grad()
def test_names_as_version_5_has_them_in_memory(tmp_path):
    theirs = hugging_face.vit()
    theirs.save_pretrained(tmp_path, save_original_format=False)
    assert "vit.layers.0.attention.q_proj.weight" in load_file(tmp_path / "model.safetensors")
    model, _ = imported(tmp_path)
    close(model(images(), model.space.largest), theirs(images()).logits)


@torch.no_grad()
def test_a_bare_network_gets_a_new_head(tmp_path):
    theirs = hugging_face.bare_vit()
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path)
    assert "it has no head, which starts anew" in notes
    found = {}
    model.head.linear.register_forward_pre_hook(lambda _, given: found.update(x=given[0]))
    model(images(), model.space.largest)
    close(found["x"], theirs(images()).last_hidden_state[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fewer_bits_become_fp32(tmp_path, dtype):
    theirs = hugging_face.vit().to(dtype)
    theirs.save_pretrained(tmp_path)
    model, _ = imported(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    close(model(images(), model.space.largest), theirs.float()(images()).logits)


@torch.no_grad()
def test_several_files(tmp_path):
    theirs = hugging_face.vit()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model, _ = imported(tmp_path)
    close(model(images(), model.space.largest), theirs(images()).logits)


@torch.no_grad()
def test_another_normalisation_is_folded_into_the_patches(tmp_path):
    theirs = hugging_face.vit()
    theirs.save_pretrained(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    processor = {"image_mean": mean, "image_std": std, "rescale_factor": 1 / 255}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    task = Normalisation(mean=(0.1, 0.7, 0.45), std=(0.4, 0.5, 0.15))
    model, notes = imported(tmp_path, normalisation=task)
    assert notes[-1] == "its normalisation of images was folded into the patch embedding"

    def normalised(mean, std):
        return (images() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    expected = theirs(normalised(mean, std)).logits
    ours = model(normalised(task.mean, task.std), model.space.largest)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    # Not what it would be without.
    plain, _ = imported(tmp_path)
    assert not torch.allclose(
        plain(normalised(task.mean, task.std), plain.space.largest), expected, atol=0.01
    )


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"image_mean": [0.5], "image_std": [0.25]}, 0.5, 0.25),
        ({"image_mean": 0.5, "image_std": 0.25}, 0.5, 0.25),
        ({"do_normalize": False}, 0.0, 1.0),
        # From bytes to 0 to 2
        ({"rescale_factor": 2 / 255, "image_mean": [1.0], "image_std": [0.5]}, 0.5, 0.25),
        ({"do_rescale": False, "image_mean": [51.0], "image_std": [25.5]}, 0.2, 0.1),
    ],
)
def test_what_a_processor_does(tmp_path, settings, mean, std):
    found = Normalisation.of_processor(settings, 1, tmp_path)
    assert found.mean == pytest.approx((mean,))
    assert found.std == pytest.approx((std,))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("name", ["rescale_factor", "image_mean", "image_std"])
def test_a_processor_with_no_finite_number(tmp_path, name, number):
    settings = {"image_mean": [0.5], "image_std": [0.5], name: number}
    with pytest.raises(UserError, match=f"{name} is "):
        Normalisation.of_processor(settings, 1, tmp_path)


@torch.no_grad()
def test_positions_for_another_size_are_those_of_transformers(tmp_path):
    theirs = hugging_face.vit()
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path, space(image_size=20))
    assert "positions were interpolated from 2 x 2 patches to 5 x 5" in notes
    expected = theirs(images(20), interpolate_pos_encoding=True).logits
    close(model(images(20), model.space.largest), expected)


@torch.no_grad()
def test_classes_are_found_by_name(tmp_path):
    names = dict(enumerate("ecadb"))
    theirs = hugging_face.vit(id2label=names, label2id={v: k for k, v in names.items()})
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path)
    assert notes[0] == "its head was kept, class by class"
    expected = theirs(images()).logits[:, ["ecadb".index(name) for name in CLASSES]]
    close(model(images(), model.space.largest), expected)
    _, notes = imported(tmp_path, classes=tuple("abcdf"))
    assert notes[0] == "its head tells other classes apart: it starts anew"
    few, notes = imported(tmp_path, space(num_classes=2), classes=tuple("ab"))
    assert notes[0] == "its head tells 5 classes apart, not 2: it starts anew"
    assert few(images(), few.space.largest).shape == (4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed": (8, 16)}, "space.embed ends with 16, but {} has 24; its largest choice must be"),
        ({"depth": (1, 2)}, "space.depth ends with 2, but {} has 3"),
        ({"heads": (1, 2)}, "space.heads ends with 2, but {} has 3"),
        ({"ffn": (1, 20)}, "space.ffn ends with 20, but {} has 40"),
        ({"head_dim": 4}, "space.head_dim is 4, but {} has 8; write space.head_dim: 8"),
        ({"patch_size": 2}, "space.patch_size is 2, but {} has 4"),
        ({"pooling": "mean"}, "space.pooling is mean, but {} has cls"),
        ({"norm_epsilon": None}, "space.norm_epsilon is 1e-05, but {} has 1e-12"),
        ({"channels": 1}, "task.channels is 1, but {} has 3"),
    ],
)
def test_a_space_of_another_network(tmp_path, changes, message):
    hugging_face.vit().save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        imported(tmp_path, space(**changes))
    assert message.format(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "deit"}, 'model_type is "deit", but only "vit" or "llama" or "mistral"'),
        ({"hidden_act": "gelu_new"}, 'hidden_act is "gelu_new", but only "gelu" is supported'),
        ({"qkv_bias": False}, "qkv_bias is false, but only true is supported"),
        ({"hidden_size": 25}, "num_attention_heads is 3, but only a divisor of hidden_size 25"),
        ({"hidden_size": ...}, "hidden_size is null, but only a positive integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, but only a positive integer"),
        ({"image_size": [8, 8]}, "image_size is [8, 8], but only a positive integer"),
        ({"patch_size": 3}, "patch_size is 3, but only a divisor of image_size 8"),
        ({"layer_norm_eps": "x"}, 'layer_norm_eps is "x", but only a positive number'),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps is 1000"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "architectures is"),
        ({"quantization_config": {"bits": 4}}, 'quantization_config is {"bits": 4}, but only null'),
        ({"id2label": {"1": "a"}}, "id2label is"),
    ],
)
def test_settings_that_are_not_supported(tmp_path, changes, message):
    hugging_face.vit().save_pretrained(tmp_path)
    hugging_face.edit(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        open_pretrained(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("vit.layernorm.bias"), "has no tensor 'vit.layernorm.bias'"),
        (
            lambda t: t.update({"vit.layernorm.bias": torch.zeros(3)}),
            "tensor 'vit.layernorm.bias' in {} has shape (3,), but its config.json says (24,)",
        ),
        (
            lambda t: t.update({"vit.encoder.layer.0.attention.q_norm.weight": torch.zeros(8)}),
            "has a tensor 'vit.encoder.layer.0.attention.q_norm.weight' (1 such)",
        ),
        (
            lambda t: t.update({"vit.layernorm.bias": torch.zeros(24, dtype=torch.int8)}),
            "tensor 'vit.layernorm.bias' in {}/model.safetensors is of type int8",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, message):
    hugging_face.vit().save_pretrained(tmp_path)
    change_tensors(tmp_path, change)
    model = build_supernet(space())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_pretrained(model, open_pretrained(tmp_path), classes=CLASSES)
    assert message.format(tmp_path) in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
