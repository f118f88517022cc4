"""What every `Executor` gives, whoever computes."""

import time

import pytest

from nas.executors.package import evaluate
from search_spaces import UserError


class ExecutorContract:
    """Subclasses bring `executor` over `subject`, and its workers once it has begun."""

    workers = 1

    def test_the_bits_of_a_direct_evaluation(self, executor, subject):
        archs = subject.some(9)
        found = dict(executor.evaluate(archs, "validation"))
        assert set(found) == set(archs)
        for arch in archs:
            assert found[arch] == evaluate(subject.model, subject.task, arch, "validation")

    def test_each_is_given_once(self, executor, subject):
        archs = subject.some(7, seed=1)
        given = [arch for arch, _ in executor.evaluate(archs, "validation")]
        assert sorted(map(str, given)) == sorted(map(str, archs))

    def test_a_share_of_the_split(self, executor, subject):
        archs = subject.some(3, seed=2)
        for arch, metrics in executor.evaluate(archs, "validation", 0.25):
            assert metrics == evaluate(subject.model, subject.task, arch, "validation", 0.25)
            assert metrics["n"] < 0.3 * len(subject.task._indices["validation"])

    def test_nothing_asked_is_nothing_given(self, executor):
        assert list(executor.evaluate([], "validation")) == []

    def test_a_subnet_that_cannot_be_judged(self, executor, subject):
        with pytest.raises(UserError, match=r"^0\.001 of the 362 samples of the validation split"):
            list(executor.evaluate([subject.model.space.smallest], "validation", 0.001))

    def test_weights_that_are_not_finite_are_refused_by_the_store(self, executor, subject, store):
        """The largest subnet alone sees the weight that is none."""
        largest, smallest = subject.model.space.largest, subject.model.space.smallest
        found = dict(executor.evaluate([smallest, largest], "validation"))
        store.add("hash", "validation", {smallest: found[smallest]})
        with pytest.raises(UserError) as error:
            store.add("hash", "validation", {largest: found[largest]})
        assert str(error.value) == (
            f"cross_entropy of architecture {largest.to_json()} is nan on the validation split; "
            "the supernet has diverged: train it anew with a lower training.learning_rate"
        )

    def test_workers(self, executor, subject):
        deadline = time.monotonic() + 60
        while executor.workers != self.workers and time.monotonic() < deadline:
            list(executor.evaluate([subject.model.space.smallest], "validation"))
            time.sleep(0.05)  # others are on their way
        assert executor.workers == self.workers
