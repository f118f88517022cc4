"""Law 6 for decoders: the largest subnet gives the outputs of transformers."""

import pytest
import torch
from safetensors.torch import load_file

from search_spaces import DecoderSpace, UserError
from supernet.families import build_supernet
from supernet.pretrained import load_pretrained, open_pretrained
from tests.supernet import hugging_face

torch.set_num_threads(1)


def space(**changes):
    fields = {
        "vocabulary": 29,
        "context": 16,
        "head_dim": 4,
        "group": 2,
        "embed": (8, 24),
        "depth": (1, 2),
        "heads": (2, 6),
        "ffn": (16, 40),
        **changes,
    }
    return DecoderSpace(**fields)


def tokens(vocabulary=29):
    return torch.randint(vocabulary, (2, 16), generator=torch.Generator().manual_seed(2))


def imported(folder, wanted=None):
    torch.manual_seed(0)
    model = build_supernet(wanted or space()).eval()
    notes = load_pretrained(model, open_pretrained(folder))
    return model, notes


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


CASES = {
    "grouped": ({}, {}),
    "untied": ({"tie_word_embeddings": False}, {}),
    "tied": ({"tie_word_embeddings": True}, {}),
    "all heads": ({"num_key_value_heads": 6}, {"group": 1}),
    "one key": ({"num_key_value_heads": 1}, {"group": 6, "heads": (6,)}),
    "wide heads": ({"head_dim": 6}, {"head_dim": 6}),
    "epsilon": ({"rms_norm_eps": 0.02}, {"norm_epsilon": 0.02}),
    "base": (
        {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
        {"rotary_base": 100.0},
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("build", [hugging_face.llama, hugging_face.mistral])
@pytest.mark.parametrize("case", CASES)
def test_the_largest_subnet_is_the_network(tmp_path, build, case):
    settings, fields = CASES[case]
    theirs = build(**settings)
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path, space(**fields))
    expected = theirs(tokens()).logits
    assert expected.std() > 0.1
    close(model(tokens(), model.space.largest), expected)
    assert ("its head is its embedding" in " ".join(notes)) == (case == "tied")


@torch.no_grad()
def test_a_cache_gives_the_same(tmp_path):
    theirs = hugging_face.llama()
    theirs.save_pretrained(tmp_path)
    model, _ = imported(tmp_path)
    plain = model.extract(model.space.largest)
    _, *past = plain(tokens()[:, :9])
    found, *_ = plain(tokens()[:, 9:], *past)
    close(found, theirs(tokens()).logits[:, 9:])


@torch.no_grad()
def test_settings_as_version_4_wrote_them(tmp_path):
    rope = {"rope_theta": 500.0, "rope_type": "default"}
    theirs = hugging_face.llama(rope_parameters=rope, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    old = {"rope_parameters": ..., "rope_theta": 500.0, "rope_scaling": None, "head_dim": ...}
    hugging_face.edit(tmp_path, **old)
    model, _ = imported(tmp_path, space(rotary_base=500.0))
    close(model(tokens(), model.space.largest), theirs(tokens()).logits)
    hugging_face.edit(tmp_path, rope_theta=..., tie_word_embeddings=...)
    assert open_pretrained(tmp_path).rotary_base == 10000.0
    # Without a word on it, a head that is there counts.
    model, notes = imported(tmp_path)
    assert notes == []
    assert not torch.equal(model.head.linear.weight, model.stem.tokens.weight)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary(tmp_path, tied):
    theirs = hugging_face.llama(tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path)
    model, notes = imported(tmp_path, space(vocabulary=20))
    assert notes[-1] == "of its 29 tokens the 20 of the tokenizer were kept"
    close(model(tokens(20), model.space.largest), theirs(tokens(20)).logits[..., :20])


@torch.no_grad()
def test_a_window_that_is_no_limit(tmp_path):
    theirs = hugging_face.mistral(sliding_window=16)
    theirs.save_pretrained(tmp_path)
    model, _ = imported(tmp_path)
    close(model(tokens(), model.space.largest), theirs(tokens()).logits)
    with pytest.raises(UserError) as error:
        imported(tmp_path, space(context=17))
    assert str(error.value) == (
        f"task.context is 17, but sliding_window of {tmp_path} is 16; write task.context: 16 or "
        "less"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed": (8, 16)}, "space.embed ends with 16, but {} has 24"),
        ({"heads": (2, 8)}, "space.heads ends with 8, but {} has 6"),
        ({"group": 1}, "space.group is 1, but {} has 2; write space.group: 2"),
        ({"norm_epsilon": 1e-5}, "space.norm_epsilon is 1e-05, but {} has 1e-06"),
        ({"rotary_base": 1e6}, "space.rotary_base is 1000000.0, but {} has 10000.0"),
        ({"context": 33}, "task.context is 33, but max_position_embeddings of {} is 32"),
        ({"vocabulary": 30}, "the tokenizer has 30 tokens, but {} only 29"),
    ],
)
def test_a_space_of_another_network(tmp_path, changes, message):
    hugging_face.llama().save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        imported(tmp_path, space(**changes))
    assert message.format(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias is true, but only null or false"),
        ({"mlp_bias": True}, "mlp_bias is true"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu", but only "silu"'),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}},
            'rope_parameters is {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}, '
            'but only null or {"rope_type": "default"} is supported',
        ),
        (
            {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}},
            'rope_scaling is {"type": "linear", "factor": 2.0}',
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rope_parameters"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4, but only a divisor of"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, but only a positive number"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
        ({"model_type": "qwen3"}, 'model_type is "qwen3"'),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is"),
    ],
)
def test_settings_that_are_not_supported(tmp_path, changes, message):
    hugging_face.llama().save_pretrained(tmp_path)
    hugging_face.edit(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        open_pretrained(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_head_that_is_missing(tmp_path):
    hugging_face.llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    hugging_face.edit(tmp_path, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"has no tensor 'lm_head.weight'"):
        imported(tmp_path)


def test_a_checkpoint_of_the_other_family(tmp_path):
    hugging_face.vit().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is of the family vit, the space of decoder"):
        imported(tmp_path)
