"""`nas init --pretrained`: the space of a checkpoint, with the checkpoint as its largest subnet."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nas.cli import main
from nas.cli.from_pretrained import smaller
from nas.cli.init import template
from nas.cli.template_values import with_values
from nas.config import load_config
from nas.tasks.tokenizer import BpeTokenizer
from search_spaces import DecoderSpace, VisionTransformerSpace
from supernet.pretrained import open_pretrained
from tests.supernet import hugging_face


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def space(config):
    fields = config.space.model_dump(exclude={"family"})
    if config.task.kind == "image-classification":
        size, channels = config.task.image_size, config.task.channels
        return VisionTransformerSpace(image_size=size, channels=channels, num_classes=10, **fields)
    return DecoderSpace(vocabulary=29, context=config.task.context, **fields)


def test_images(capsys):
    hugging_face.vit().save_pretrained("my vit")
    assert main(["init", "images", "--pretrained", "my vit", "--output", "a.yaml"]) == 0
    assert capsys.readouterr().out == "configuration: a.yaml\nnext: nas run a.yaml\n"
    config = load_config("a.yaml")
    assert config.training.pretrained == "my vit"
    assert config.training.importance_order
    assert config.training.learning_rate <= 1e-3
    assert config.space.embed == (16, 24)
    assert config.space.depth == (2, 3)
    assert config.space.heads == (2, 3)
    assert config.space.ffn == (8, 24, 32, 40)
    open_pretrained(Path("my vit")).check(space(config))
    text = Path("a.yaml").read_text()
    assert "  embed: [16, 24]            # embedding width of the whole network\n" in text
    assert "nas run a.yaml" in text


def give_tokenizer(folder):
    tokenizer = BpeTokenizer.train([b"to be or not to be"], vocabulary=258)
    Path(folder, "tokenizer.json").write_text(tokenizer.to_json())


@pytest.mark.parametrize("task", ["text", "stdlib-text"])
@pytest.mark.parametrize("build", [hugging_face.llama, hugging_face.mistral])
def test_texts(task, build):
    rope = {"rope_theta": 5e5, "rope_type": "default"}
    build(rope_parameters=rope, rms_norm_eps=1e-5, head_dim=6, vocab_size=264).save_pretrained(
        "net"
    )
    give_tokenizer("net")
    assert main(["init", task, "--pretrained", "net"]) == 0
    config = load_config(f"{task}.yaml")
    assert config.task.tokenizer == "net/tokenizer.json"
    assert config.task.context == 32
    assert config.calls["prefill"].sequence == 32
    assert config.calls["decode"].past == 31
    assert config.space.rotary_base == 5e5
    assert config.space.norm_epsilon == 1e-5
    assert config.space.heads == (4, 6)
    open_pretrained(Path("net")).check(space(config))


def test_the_context_is_bounded():
    long = {"max_position_embeddings": 4096, "vocab_size": 258}
    hugging_face.mistral(**long, sliding_window=128).save_pretrained("net")
    give_tokenizer("net")
    assert main(["init", "text", "--pretrained", "net"]) == 0
    assert load_config("text.yaml").task.context == 128
    hugging_face.llama(**long).save_pretrained("other")
    give_tokenizer("other")
    assert main(["init", "text", "--pretrained", "other", "--output", "b.yaml"]) == 0
    assert load_config("b.yaml").task.context == 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "--pretrained", "vit"], "of the family vit, which text is not for; write nas"),
        (["digits", "--pretrained", "vit"], "which digits is not for; write nas init images"),
        (["images", "--pretrained", "no"], "training.pretrained no is not a folder"),
        (["text", "--pretrained", "llama"], "llama has no tokenizer.json; put the one there"),
        (["text", "--pretrained", "words"], "no other tokenizer fits its weights, so take another"),
        (["text", "--pretrained", "few"], "the tokenizer has 258 tokens, but few only 29;"),
        (["text", "--pretrained", "part"], "part has no tensor 'model.layers.0.self_attn.q_proj"),
        (["images", "--pretrained", "part vit"], "part vit has no tensor 'embeddings.patch_emb"),
    ],
)
def test_what_cannot_be(arguments, message, capsys):
    hugging_face.vit().save_pretrained("vit")
    for name in ("llama", "words", "few", "part"):
        hugging_face.llama().save_pretrained(name)
    Path("words/tokenizer.json").write_text("{}")
    give_tokenizer("few")
    hugging_face.vit().save_pretrained("part vit")
    for name in ("part", "part vit"):
        save_file({"other": torch.zeros(1)}, f"{name}/model.safetensors")
    assert main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(Path().glob("*.yaml"))


@pytest.mark.parametrize(
    ("width", "shares", "step", "expected"),
    [
        (768, (0.5, 0.75, 1), 8, [384, 576, 768]),
        (3072, (0.25, 0.5, 0.75, 1), 8, [768, 1536, 2304, 3072]),
        (9, (0.5, 0.75, 1), 3, [6, 9]),
        (1, (0.5, 0.75, 1), 1, [1]),
        (20, (0.25, 0.5, 1), 8, [8, 20]),
    ],
)
def test_smaller_widths(width, shares, step, expected):
    assert smaller(width, shares, step) == expected


def test_values_of_a_template():
    text = template("digits")
    assert with_values(text, {}) == text
    changed = with_values(
        text,
        {"task.image_size": "12", "space.extra": ("3", "new"), "search.last": "4"},
    )
    assert "  image_size: 12             # pixels\n" in changed
    assert "\n  extra: 3                   # new\n\ntraining:\n" in changed
    assert "\n  last: 4\n\n# cluster:" in changed
    with pytest.raises(KeyError):
        with_values(text, {"nowhere.key": "1"})
