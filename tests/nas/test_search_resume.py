"""An interrupted search, resumed from a real store, ends in the identical result."""

from contextlib import closing
from functools import partial

import numpy as np
import pytest

from latency.database import connect
from nas.search import ALGORITHMS, search
from nas.store import EvaluationStore
from search_spaces import SearchSpace
from tests.nas.kills import Killed, resumed

SPACE = SearchSpace(
    {"depth": (1, 2, 3, 4), **{f"width.{i}": (1, 2, 4, 8) for i in range(16)}},
    {f"width.{i}": {"depth": tuple(range(i // 4 + 1, 5))} for i in range(16)},
)
WEIGHTS = np.random.default_rng(3).random(SPACE.dimensions)
BUDGET = 56
LEARNING = {"boshnas", "guided", "linas"}
"""Those that fit models, and take their time."""


@pytest.fixture(autouse=True)
def _short_inner_searches(monkeypatch):
    monkeypatch.setattr("nas.search.linas.INNER_EVALUATIONS", 300)


def cost(architectures):
    return SPACE.encode_all(architectures).sum(axis=1, keepdims=True).astype(float)


def resume(name, path, kill_after=None):
    """Search with what the store knows; dies before computing number `kill_after` of this call."""
    computed = 0

    def evaluate(architectures):
        nonlocal computed
        rows = []
        for arch in architectures:
            known = store.get("net", arch, "validation")
            if known is None:
                if computed == kill_after:
                    raise Killed
                computed += 1
                loss = float(np.exp(-(SPACE.encode(arch) * WEIGHTS).sum() / 8))
                store.add("net", "validation", {arch: {"loss": loss}})
                known = {"loss": loss}
            rows.append([known["loss"]])
        return np.array(rows)

    with closing(connect(path)) as connection:
        store = EvaluationStore(connection)
        result = search(
            SPACE,
            evaluate,
            cost,
            budget=BUDGET,
            algorithm=name,
            population=12,
            seed=4,
            constraints=["cost <= 40", "loss <= 0.9"],
            objective_names=["loss", "cost"],
        )
        return result, [row.architecture for row in store.rows()]


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_killed_at_random_moments_it_ends_in_the_identical_result(name, tmp_path):
    expected, stored = resume(name, tmp_path / "alone.db")
    assert stored == list(expected.architectures)
    rng = np.random.default_rng(sorted(ALGORITHMS).index(name))
    rounds = 1 if name in LEARNING else 3
    for number in range(rounds):
        again = partial(resume, name, tmp_path / f"{number}.db")
        result, rows = resumed(again, BUDGET, 24, rng)
        assert result.architectures == expected.architectures
        assert result.values.tobytes() == expected.values.tobytes()
        assert result.front.tolist() == expected.front.tolist()
        assert rows == stored, "nothing was evaluated twice, or in another order"
