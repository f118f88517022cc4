"""What workers are given, and evaluations in this process."""

import pickle

import numpy as np
import pytest
import torch

from latency.database import connect
from nas.executors.executor import LocalExecutor
from nas.executors.package import Opened, evaluate, pack
from nas.store import EvaluationStore
from nas.tasks import build_task
from search_spaces import DecoderSpace, UserError
from supernet.checkpoint import content_hash, named_tensors
from supernet.families import build_supernet
from tests.nas.executor_contract import ExecutorContract
from tests.nas.executor_subject import POLICIES, Subject, vision


@pytest.fixture
def store(tmp_path):
    connection = connect(tmp_path / "run.db")
    yield EvaluationStore(connection)
    connection.close()


class TestLocal(ExecutorContract):
    @pytest.fixture
    def subject(self):
        return vision(diverged=True)

    @pytest.fixture
    def executor(self, subject):
        return LocalExecutor(
            lambda arch, split, share: evaluate(subject.model, subject.task, arch, split, share)
        )


def text(tmp_path, tokenizer):
    words = np.random.default_rng(0).choice(["the", "net", "größe\n", "learns"], size=6000)
    (tmp_path / "text.txt").write_text(" ".join(words), encoding="utf-8")
    task = build_task(
        "language-modelling",
        data=str(tmp_path / "text.txt"),
        tokenizer=tokenizer,
        vocabulary=260 if tokenizer == "bpe" else None,
        context=16,
        split=(0.6, 0.2, 0.2),
    )
    space = DecoderSpace(
        vocabulary=task.num_classes,
        context=16,
        head_dim=4,
        group=1,
        embed=(8, 16),
        depth=(1, 2),
        heads=(1, 2),
        ffn=(8, 16),
    )
    torch.manual_seed(0)
    model = build_supernet(space).eval()
    return Subject(model, task, content_hash(named_tensors(model), space.to_json()))


@pytest.mark.parametrize("kind", ["images", "policies", "bytes", "bpe"])
def test_an_opened_package_gives_the_same_bits(kind, tmp_path):
    if kind in ("bytes", "bpe"):
        subject = text(tmp_path, kind)
    else:
        subject = vision(precision=POLICIES if kind == "policies" else ())
    opened = Opened(subject.package().to_bytes())
    assert opened.introduction() == subject.introduction()
    archs = [subject.model.space.sample(np.random.default_rng(i)) for i in range(8)]
    for arch in archs:
        # A look first: what is remembered of it must not change what follows
        for share in (0.5, 1.0):
            expected = evaluate(subject.model, subject.task, arch, "validation", share)
            assert opened.evaluate(arch, share) == expected
        assert opened.evaluate(arch, 1.0) == expected


def test_a_subnet_has_the_same_bits_however_often_it_ran(tmp_path):
    """From the eighth batch on it runs as a plain module: workers differ in what they ran."""
    subject = text(tmp_path, "bytes")
    arch = subject.model.space.largest
    first = evaluate(subject.model, subject.task, arch, "validation", 0.1)
    for _ in range(12):
        assert evaluate(subject.model, subject.task, arch, "validation", 0.1) == first


@pytest.mark.parametrize("kind", ["images", "bytes"])
def test_a_package_holds_the_validation_split_alone(kind, tmp_path):
    subject = vision() if kind == "images" else text(tmp_path, "bytes")
    held = subject.package().task
    assert len(pickle.dumps(held)) < 0.5 * len(pickle.dumps(subject.task))
    for (inputs, targets), (same, too) in zip(
        held.split("validation", 0.5), subject.task.split("validation", 0.5), strict=True
    ):
        assert torch.equal(inputs, same)
        assert torch.equal(targets, too)
    for missing in ("train", "test"):
        with pytest.raises(KeyError):
            next(iter(held.split(missing)))
    next(iter(subject.task.split("train")))  # which has lost nothing


def test_a_package_carries_the_threads_of_an_evaluation():
    subject = vision()
    package = subject.package()
    assert package.threads == torch.get_num_threads()
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        Opened(package.to_bytes())
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)


def test_other_weights_than_the_name_says():
    subject = vision()
    package = pack(subject.model, subject.task, "0" * 64, "validation")
    with pytest.raises(UserError, match="are not those of supernet 0000000000000000; start"):
        Opened(package.to_bytes())
