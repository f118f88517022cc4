"""Language: no document in two splits, no byte lost, bits per byte as the slow way gives them."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nas.tasks import SPLITS, build_task
from nas.tasks.corpus import Document, read_corpus, split_documents
from nas.tasks.language import LanguageModelling
from nas.tasks.tokenizer import BpeTokenizer, ByteTokenizer
from search_spaces.errors import UserError

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.fixture(scope="module")
def stdlib() -> LanguageModelling:
    torch.set_num_threads(1)
    return LanguageModelling(max_bytes=400_000, context=32, batch_size=8, evaluation_tokens=2048)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    words = ["wörd", "text", "model", "naïve", "日本", "front", "a", "of"]
    for number in range(40):
        lines = [f"{rng.integers(10**6)} " + " ".join(rng.choice(words, 7)) for _ in range(20)]
        (folder / f"{number}.txt").write_text(f"file {number}\n" + "\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def bpe(texts: Path) -> LanguageModelling:
    return LanguageModelling(
        data=str(texts), tokenizer="bpe", vocabulary=270, context=16, split=(0.8, 0.1, 0.1)
    )


def load(path: Path, **parameters: object) -> LanguageModelling:
    task = build_task("language-modelling", data=str(path), **parameters)
    assert isinstance(task, LanguageModelling)
    return task


def forward(vocabulary: int, seed: int = 0):  # type: ignore[no-untyped-def]
    table = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed))
    return lambda tokens: table[tokens]


def test_shapes_types_and_targets_follow_inputs(stdlib: LanguageModelling) -> None:
    inputs, targets = stdlib.batch(0)
    assert inputs.shape == targets.shape == (8, 32)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert stdlib.num_classes == stdlib.vocabulary == 256
    assert stdlib.steps_per_epoch == -(-stdlib.record["tokens"]["train"] // 256)
    assert json.loads(json.dumps(stdlib.record)) == stdlib.record


def test_batch_is_a_pure_function_of_seed_and_step(stdlib: LanguageModelling) -> None:
    first = stdlib.batch(7)[0].clone()
    stdlib.batch(7)[0].zero_()
    for step in (0, 12, 6):
        stdlib.batch(step)
    list(stdlib.split("test"))
    assert torch.equal(first, stdlib.batch(7)[0])
    again = LanguageModelling(
        max_bytes=400_000, context=32, batch_size=8, evaluation_tokens=2048, seed=0
    )
    assert torch.equal(first, again.batch(7)[0])
    assert again.record == stdlib.record
    other = LanguageModelling(max_bytes=400_000, context=32, batch_size=8, seed=1, split_seed=0)
    assert other.record["index_sha256"] == stdlib.record["index_sha256"]
    assert not torch.equal(first, other.batch(7)[0])


def test_stdlib_is_its_sources_without_tests(stdlib: LanguageModelling) -> None:
    documents = read_corpus("stdlib")
    names = [document.name for document in documents]
    assert names == sorted(names)
    assert "argparse.py" in names
    assert "json/decoder.py" in names
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert sum(len(document.data) for document in documents) > 5_000_000
    assert stdlib.record["unit"] == "file"
    assert sum(stdlib.record["bytes"].values()) == pytest.approx(400_000, abs=3)


def test_no_document_is_in_two_splits(texts: Path) -> None:
    documents = read_corpus(str(texts))
    parts, unit = split_documents(documents, FRACTIONS, seed=3)
    assert unit == "file"
    names = [document.name for part in parts.values() for document in part]
    assert sorted(names) == sorted(document.name for document in documents)
    total = sum(len(document.data) for document in documents)
    for name, part in parts.items():
        share = sum(len(document.data) for document in part) / total
        assert share == pytest.approx(FRACTIONS[name], abs=0.03)
    assert split_documents(documents, FRACTIONS, seed=4)[0] != parts


def test_training_batches_hold_training_text_only(texts: Path) -> None:
    task = load(texts, context=64, split=(0.8, 0.1, 0.1), batch_size=64)
    parts, _ = split_documents(
        read_corpus(str(texts)), dict(zip(SPLITS, (0.8, 0.1, 0.1), strict=True)), seed=0
    )
    train = b"".join(document.data for document in parts["train"])
    held_out = b"".join(document.data for name in SPLITS[1:] for document in parts[name])
    for step in range(10):
        for crop in task.batch(step)[0].tolist():
            assert bytes(crop) in train
    for name in SPLITS[1:]:
        for inputs, _ in task.split(name):
            assert all(bytes(window) in held_out for window in inputs.tolist())
            assert not any(bytes(window) in train for window in inputs.tolist())


def test_copies_and_empty_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.md").write_text("one")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "d.bin").write_bytes(b"\xff")
    (tmp_path / ".e.txt").write_text("hidden")
    assert [document.name for document in read_corpus(str(tmp_path))] == ["a.txt"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4), st.integers(0, 9))
def test_every_split_keeps_every_byte_and_every_character(texts: list[str], seed: int) -> None:
    documents = [Document(name=str(i), data=text.encode()) for i, text in enumerate(texts)]
    parts, unit = split_documents(documents, FRACTIONS, seed=seed)
    pieces = [document for part in parts.values() for document in part]
    assert sum(len(piece.data) for piece in pieces) == sum(len(d.data) for d in documents)
    for piece in pieces:
        piece.data.decode()
    if unit == "part of a file":
        for document in documents:
            own = [p.data for p in pieces if p.name.rsplit("[", 1)[0] == document.name]
            assert b"".join(own) == document.data


def test_a_single_file_is_cut_into_three_parts(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_bytes(bytes(range(97, 123)) * 40)
    task = load(path, context=8)
    assert task.record["unit"] == "part of a file"
    assert task.record["bytes"] == {"train": 936, "validation": 52, "test": 52}
    assert task.record["held_out"]["test"] == ["book[988:1040]"]


def test_max_bytes_cuts_at_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é" * 10, encoding="utf-8")
    (document,) = read_corpus(str(tmp_path), max_bytes=5)
    assert document.data == "éé".encode()


def test_windows_do_not_overlap_and_are_limited(stdlib: LanguageModelling) -> None:
    assert stdlib.record["evaluated_windows"]["test"] == 64
    windows = torch.cat([inputs for inputs, _ in stdlib.split("test")])
    assert windows.shape == (64, 32)
    tokens = stdlib._tokens["test"]
    starts = stdlib._windows["test"]
    assert np.all(np.diff(starts) >= 1)
    assert starts[-1] * 32 > 0.9 * len(tokens)
    unlimited = LanguageModelling(max_bytes=400_000, context=32, evaluation_tokens=10**9)
    joined = torch.cat([inputs for inputs, _ in unlimited.split("test")]).flatten().numpy()
    assert np.array_equal(joined, tokens[: len(joined)])
    assert len(tokens) - len(joined) <= 32


def slow_reference(task: LanguageModelling, model) -> dict[str, float]:  # type: ignore[no-untyped-def]
    nats, sizes = [], []
    for inputs, targets in task.split("test"):
        for row, target in zip(model(inputs).double(), targets, strict=True):
            lost = [-torch.log_softmax(row[i], 0)[t].item() for i, t in enumerate(target)]
            nats.append(sum(lost))
            sizes.append(len(task.tokenizer.decode(target.tolist())))
    mean = sum(nats) / (len(nats) * task.context)
    bits = sum(nats) / math.log(2) / sum(sizes)
    # Standard error of a ratio by the jackknife: no formula shared with the code under test.
    count = len(nats)
    left = [
        (sum(nats) - n) / math.log(2) / (sum(sizes) - s) for n, s in zip(nats, sizes, strict=True)
    ]
    jackknife = math.sqrt((count - 1) / count * sum((x - sum(left) / count) ** 2 for x in left))
    return {
        "cross_entropy": mean,
        "cross_entropy_se": float(np.std(nats, ddof=1)) / task.context / math.sqrt(count),
        "bits_per_byte": bits,
        "bits_per_byte_se": jackknife,
        "perplexity": math.exp(mean),
    }


@pytest.mark.parametrize("name", ["stdlib", "bpe"])
def test_metrics_agree_with_a_slow_reference(name: str, request: pytest.FixtureRequest) -> None:
    task = request.getfixturevalue(name)
    model = forward(task.vocabulary)
    metrics = task.metrics(model, "test")
    slow = slow_reference(task, model)
    for key in ("cross_entropy", "cross_entropy_se", "bits_per_byte", "perplexity"):
        assert metrics[key] == pytest.approx(slow[key], rel=1e-6)
    assert metrics["bits_per_byte_se"] == pytest.approx(slow["bits_per_byte_se"], rel=0.1)
    assert metrics["perplexity_se"] == metrics["perplexity"] * metrics["cross_entropy_se"]
    assert metrics["n"] == task.record["evaluated_windows"]["test"] * task.context
    assert task.metrics(lambda tokens: model(tokens).numpy(), "test") == metrics


def test_a_uniform_model_over_bytes_has_eight_bits(stdlib: LanguageModelling) -> None:
    metrics = stdlib.metrics(lambda tokens: torch.zeros(*tokens.shape, 256), "validation")
    assert metrics["bits_per_byte"] == pytest.approx(8, abs=1e-12)
    assert metrics["perplexity"] == pytest.approx(256)


def test_a_diverged_model_gives_infinities_not_a_crash(stdlib: LanguageModelling) -> None:
    metrics = stdlib.metrics(lambda tokens: forward(256)(tokens) * 1e4, "validation")
    assert metrics["perplexity"] == math.inf


def test_bpe_counts_every_byte_and_comes_back(bpe: LanguageModelling) -> None:
    tokenizer = bpe.tokenizer
    assert tokenizer.vocabulary == 270
    text = "naïve 日本 wörd\r\n\t\x00 👍 <|endoftext|>".encode()
    (tokens,) = tokenizer.encode([text])
    assert tokenizer.decode(tokens.tolist()) == text
    assert tokenizer.lengths[tokens].sum() == len(text)
    assert sum(bpe.record["tokens"].values()) < sum(bpe.record["bytes"].values())
    for name in SPLITS:
        assert bpe.tokenizer.lengths[bpe._tokens[name]].sum() == bpe.record["bytes"][name]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=80))
def test_tokenizers_lose_no_byte(text: str) -> None:
    data = text.encode()
    for tokenizer in (ByteTokenizer(), SMALL):
        (tokens,) = tokenizer.encode([data])
        assert tokenizer.decode(tokens.tolist()) == data
        assert tokenizer.lengths[tokens].sum() == len(data)


SMALL = BpeTokenizer.train([b"the model and the front of the models " * 9], vocabulary=262)


def test_bpe_is_saved_as_json_and_trained_reproducibly(
    bpe: LanguageModelling, texts: Path, tmp_path: Path
) -> None:
    assert isinstance(bpe.tokenizer, BpeTokenizer)
    path = tmp_path / "tokenizer.json"
    bpe.tokenizer.save(path)
    assert list(tmp_path.iterdir()) == [path]
    json.loads(path.read_text("utf-8"))
    loaded = load(texts, tokenizer=str(path), context=16, split=(0.8, 0.1, 0.1))
    again = load(texts, tokenizer="bpe", vocabulary=270, context=16, split=(0.8, 0.1, 0.1))
    assert loaded.record == again.record == bpe.record
    assert torch.equal(loaded.batch(3)[0], bpe.batch(3)[0])


def test_foreign_tokenizers_are_refused(tmp_path: Path) -> None:
    document = json.loads(SMALL.to_json())
    document["normalizer"] = {"type": "Lowercase"}
    path = tmp_path / "lower.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="not a plain byte-level BPE"):
        BpeTokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="not a plain byte-level BPE"):
        BpeTokenizer.load(path)
    document["normalizer"] = None
    document["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="does not give back the bytes"):
        BpeTokenizer.load(path).encode([b"front"])


def with_special(*names: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(SMALL.to_json())
    tokenizer.add_special_tokens(list(names))
    return tokenizer


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["<s>", "<|end|>", "the", " model", "é", "<", "s>"]), max_size=9))
def test_special_tokens_come_from_no_text(words: list[str]) -> None:
    tokenizer = BpeTokenizer(with_special("<s>", "<|end|>").to_str())
    assert tokenizer.vocabulary == 264
    assert tokenizer.lengths[262:].tolist() == [0, 0]
    data = "".join(words).encode()
    (tokens,) = tokenizer.encode([data])
    assert not set(tokens.tolist()) & {262, 263}
    assert tokenizer.lengths[tokens].sum() == len(data)
    assert tokenizer.decode(tokens.tolist()) == data
    assert tokenizer.decode([262, *tokens.tolist(), 263]) == data
    # A copy, as a run keeps one, does the same.
    (again,) = BpeTokenizer(tokenizer.to_json()).encode([data])
    assert again.tolist() == tokens.tolist()


def test_a_special_token_that_the_training_of_the_tokenizer_knew() -> None:
    """It has an id before those of the bytes."""
    document = json.loads(SMALL.to_json())
    shifted = {name: token + 1 for name, token in document["model"]["vocab"].items()}
    document["model"]["vocab"] = {"<s>": 0, **shifted}
    added = {"id": 0, "content": "<s>", "special": True, "normalized": False}
    document["added_tokens"] = [{**added, "single_word": False, "lstrip": False, "rstrip": False}]
    tokenizer = BpeTokenizer(json.dumps(document))
    (tokens,) = tokenizer.encode([b"the <s> model"])
    assert tokenizer.vocabulary == 263
    assert tokenizer.lengths[0] == 0
    assert 0 not in tokens
    assert tokenizer.decode(tokens.tolist()) == b"the <s> model"


def test_a_saved_truncation_cuts_nothing() -> None:
    tokenizer = with_special("<s>")
    tokenizer.enable_truncation(max_length=2)
    tokenizer.enable_padding(length=4, pad_id=262)
    (tokens,) = BpeTokenizer(tokenizer.to_str()).encode([b"the model and the front"])
    assert BpeTokenizer(tokenizer.to_str()).decode(tokens.tolist()) == b"the model and the front"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {
                "pre_tokenizer": {
                    "type": "Metaspace",
                    "replacement": "▁",
                    "prepend_scheme": "always",
                }
            },
            "it marks spaces as SentencePiece does, and is not on bytes",
        ),
        (
            {
                "added_tokens": [
                    {
                        "id": 262,
                        "content": "ab",
                        "special": False,
                        "normalized": False,
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                    }
                ]
            },
            "it adds the token 'ab', which is not special",
        ),
        (
            {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
            "its model is WordLevel",
        ),
        (
            {"model": {"type": "BPE", "vocab": {"▁a": 0}, "merges": []}},
            "its token '▁a' is not spelled in bytes",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 2}, "merges": []}}, "it has no token 1"),
    ],
)
def test_what_a_tokenizer_may_not_do(change: dict[str, object], reason: str) -> None:
    document = {**json.loads(SMALL.to_json()), **change}
    with pytest.raises(UserError) as error:
        BpeTokenizer(json.dumps(document))
    assert reason in str(error.value)
    assert "set task.tokenizer: bpe to train one" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, texts: Path) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"run pip install 'elastic-nas\[hf\]'"):
        load(texts, tokenizer="bpe", vocabulary=270)
    load(texts, context=16)  # bytes need no package


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tokenizer": "words"}, "'words' is not bytes, bpe or the path of a .json file"),
        ({"tokenizer": "no.json"}, r"no\.json cannot be read \(FileNotFoundError\); name bytes"),
        ({"vocabulary": 300}, "vocabulary 300 is not the 256 of task.tokenizer bytes; set it"),
        ({"tokenizer": "bpe", "vocabulary": 100}, "vocabulary 100 is below 256"),
        (
            {"tokenizer": "bpe", "vocabulary": 90000},
            r"90000 is too large for the training text, which yields \d+ tokens; set",
        ),
        ({"context": 0}, "task.context 0 is not a whole number of 1 or more"),
        ({"max_bytes": 0}, "task.max_bytes 0 is not a whole number of 1 or more"),
        ({"evaluation_tokens": 100}, "evaluation_tokens 100 is below 256, two windows"),
        ({"context": 4000}, "the validation text has .* tokens, fewer than the 8001 that"),
        ({"split": (0.9, 0.1, 0.1)}, "task.split sums to 1.1, not 1"),
    ],
)
def test_bad_parameters_are_one_clear_line(
    texts: Path, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(texts, **parameters)
    assert "\n" not in str(caught.value)


def test_bad_texts_are_one_clear_line(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            load(path, split=(0.8, 0.1, 0.1))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "nowhere does not exist; name a text file" in message(tmp_path / "nowhere")
    assert "holds no text files (.md, .py, .rst, .txt); add some" in message(tmp_path)
    path = tmp_path / "a.txt"
    path.write_text("")
    assert "holds no text, only empty files" in message(tmp_path)
    path.write_text("short")
    assert "the train text has 4 tokens, fewer than the 129 that task.context" in message(path)
    path.write_bytes(b"abc\xe9def")
    assert f"text file {path} is not UTF-8 at byte offset 3 (0xe9); convert" in message(path)


def test_a_share_of_a_split_is_whole_windows_evenly_spread(stdlib: LanguageModelling) -> None:
    every = torch.cat([inputs for inputs, _ in stdlib.split("validation")])
    some = torch.cat([inputs for inputs, _ in stdlib.split("validation", 0.25)])
    assert len(some) == len(every) // 4
    assert torch.equal(some, every[::4])
    metrics = stdlib.metrics(forward(256), "validation", 0.25)
    assert metrics["n"] == some.numel()
    with pytest.raises(UserError, match="fewer than 2"):
        stdlib.metrics(forward(256), "validation", 0.01)
