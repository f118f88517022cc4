"""Lower fidelities: what is promoted, what it costs, and that nothing else gets into a result."""

from contextlib import closing
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency.database import connect
from nas.search import Fidelity, hypervolume, search
from nas.search.fidelity import PAIRS, LookBias
from nas.stages.supernet import stored_split
from nas.store import EvaluationStore
from search_spaces import SearchSpace
from search_spaces.errors import UserError
from tests.nas.kills import Killed, resumed

SPACE = SearchSpace(
    {"depth": (1, 2, 3), **{f"width.{i}": (1, 2, 4, 8) for i in range(12)}},
    {f"width.{i}": {"depth": tuple(range(i // 4 + 1, 4))} for i in range(12)},
)
WEIGHTS = np.random.default_rng(3).random(SPACE.dimensions)


def full(archs):
    # Row by row: the same in a batch of any size.
    return np.exp(-(SPACE.encode_all(archs) * WEIGHTS).sum(axis=1) / 6)[:, None]


def cost(archs):
    return SPACE.encode_all(archs).sum(axis=1, keepdims=True).astype(float)


def noise(archs, scale):
    """The same for the same architecture, and no two alike."""
    genes = SPACE.encode_all(archs).astype(float)
    return scale * np.sin(genes @ np.arange(1, SPACE.dimensions + 1) * 12.9898)[:, None]


def looking(scale, bias=0.3):
    return lambda archs: full(archs) + bias + noise(archs, scale)


class Counted:
    """An evaluation that remembers whom it was asked about."""

    def __init__(self, evaluate):
        self.evaluate, self.asked = evaluate, []

    def __call__(self, archs):
        self.asked += archs
        return self.evaluate(archs)


def dominated(values, by):
    return ((by <= values).all(axis=1) & (by < values).any(axis=1)).any()


@settings(max_examples=25, deadline=None)
@given(
    budget=st.integers(1, 60),
    costs=st.lists(st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]), max_size=3, unique=True),
    scale=st.floats(0, 0.3),
    bounded=st.booleans(),
    batch=st.sampled_from([None, 1, 7]),
    seed=st.integers(0, 99),
)
def test_laws_of_a_search_with_fidelities(budget, costs, scale, bounded, batch, seed):
    evaluate = Counted(full)
    looks = [Counted(looking(scale * (1 - c))) for c in sorted(costs)]
    result = search(
        SPACE,
        evaluate,
        cost,
        budget,
        "nsga2",
        seed,
        constraints=["loss <= 0.5", "size <= 30"] if bounded else [],
        objective_names=["loss", "size"],
        batch=batch,
        population=8,
        fidelities=[
            Fidelity(evaluate=look, cost=c) for look, c in zip(looks, sorted(costs), strict=True)
        ],
    )
    # Nothing is in the result that was not fully evaluated, nor with any other values.
    assert list(result.architectures) == evaluate.asked
    np.testing.assert_array_equal(
        result.values, np.hstack([full(evaluate.asked), cost(evaluate.asked)])
    )
    assert result.batches[-1] == len(result.architectures)
    # Who was looked at was either promoted, step by step, or left behind.
    asked = [set(look.asked) for look in looks]
    for lower, higher in pairwise(asked):
        assert higher <= lower
    if looks:
        assert set(result.left_behind) == asked[0] - set(evaluate.asked)
    assert len(set(result.left_behind)) == len(result.left_behind)
    # The budget is kept, and used but for what one more could cost.
    spent = len(evaluate.asked) + sum(
        c * len(look.asked) for c, look in zip(sorted(costs), looks, strict=True)
    )
    assert result.spent == pytest.approx(spent)
    assert budget - 1 < spent <= budget + 1e-6


# Not `guided`: what it wants to see here, it promotes.
@pytest.mark.parametrize("name", ["ctaea", "nsga2", "random"])
def test_exact_looks_leave_only_dominated_ones_behind(name):
    fidelity = Fidelity(evaluate=looking(0.0), cost=0.25)
    result = search(SPACE, full, cost, 40, name, population=12, fidelities=[fidelity])
    assert len(result.left_behind) > 0
    best = result.values[result.front]
    for arch in result.left_behind:
        assert dominated(np.hstack([full([arch]), cost([arch])]), best)


def test_the_first_ones_are_evaluated_whatever_their_looks():
    seen = []
    search(
        SPACE,
        Counted(full),
        cost,
        40,
        "random",
        batch=20,
        fidelities=[Fidelity(evaluate=looking(0.0), cost=0.25)],
        on_batch=seen.append,
    )
    assert len(seen[0].architectures) >= PAIRS
    assert len(seen[-1].left_behind) > len(seen[0].left_behind)


def test_looks_find_more_where_nothing_is_learned():
    box = {"ideal": [0, 0], "reference": [1, 40]}
    fidelity = Fidelity(evaluate=looking(0.01), cost=0.1)

    def found(seed, *fidelities):
        result = search(SPACE, full, cost, 60, "nsga2", seed, fidelities=fidelities)
        return hypervolume(result.values, **box)

    gains = [found(seed, fidelity) - found(seed) for seed in range(5)]
    assert np.mean(gains) > 0.005


def test_a_space_without_more_is_evaluated_whole():
    """What was left behind comes last, where budget is left and nothing else to look at."""
    space = SearchSpace({f"g{i}": (0, 1, 2) for i in range(4)})

    def evaluate(archs):
        return space.encode_all(archs)[:, :2].astype(float)

    def look(archs):
        return evaluate(archs) + 5

    fidelity = Fidelity(evaluate=look, cost=0.25)
    result = search(space, evaluate, None, 500, "random", fidelities=[fidelity])
    assert len(set(result.architectures)) == 81
    assert result.left_behind == ()
    some = search(space, evaluate, None, 40, "random", fidelities=[fidelity])
    assert some.spent <= 40
    assert len(some.left_behind) + len(some.architectures) == 81


def test_what_is_known_is_on_the_front_that_looks_are_held_against():
    """Known ones that dominate everything: whatever is judged by its look is left behind."""
    known = {SPACE.largest: [-1.0], SPACE.smallest: [-2.0]}
    fidelity = Fidelity(evaluate=looking(0.0), cost=0.25)
    result = search(SPACE, full, cost, 40, "random", known=known, fidelities=[fidelity])
    # The last one is not looked at: not enough is left for its look and its evaluation.
    assert len(result.architectures) == 2 + PAIRS + 1
    assert len(result.left_behind) > PAIRS
    assert result.spent > 39


@settings(max_examples=30, deadline=None)
@given(
    bias=st.floats(-5, 5),
    slope=st.floats(0.8, 1.25),
    spread=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_bias_and_spread_are_measured(bias, slope, spread, seed):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 10, (400, 2))
    looks = (true - bias) / slope
    true += spread * rng.standard_normal(true.shape)
    known = LookBias()
    known.learn(looks[:200], true[:200])
    known.learn(looks[200:300], true[200:300])
    expected, at_best = known.judge(looks[300:])
    assert np.abs(expected - true[300:]).mean() <= 1.1 * spread + 0.1
    better = (true[300:] < at_best - 0.01).mean()
    assert better <= 0.45
    assert spread < 0.1 or (true[300:] < at_best).mean() >= 0.15


def resume(name, path, kill_after=None):
    """Search with what the store knows; dies before computing number `kill_after` of this call."""
    computed = 0

    def judged(share):
        split = stored_split("validation", share)
        values = full if share == 1 else looking(0.1 * (1 - share))

        def evaluate(archs):
            nonlocal computed
            rows = []
            for arch in archs:
                known = store.get("net", arch, split)
                if known is None:
                    if computed == kill_after:
                        raise Killed
                    computed += 1
                    known = {"loss": float(values([arch])[0, 0])}
                    store.add("net", split, {arch: known})
                rows.append([known["loss"]])
            return np.array(rows)

        return evaluate

    with closing(connect(path)) as connection:
        store = EvaluationStore(connection)
        result = search(
            SPACE,
            judged(1.0),
            cost,
            40,
            name,
            seed=2,  # with which both algorithms leave some behind
            population=8,
            constraints=["loss <= 0.7"],
            objective_names=["loss", "size"],
            fidelities=[Fidelity(evaluate=judged(share), cost=share) for share in (0.1, 0.4)],
        )
        return result, [(row.split, row.architecture) for row in store.rows()]


@pytest.mark.parametrize("name", ["nsga2", pytest.param("guided", marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_in_the_identical_result(name, tmp_path):
    expected, stored = resume(name, tmp_path / "alone.db")
    assert len(set(stored)) == len(stored)
    assert {split for split, _ in stored} == {"validation", "validation:0.1", "validation:0.4"}
    assert expected.left_behind
    rng = np.random.default_rng(1)
    for number in range(1 if name == "guided" else 3):
        again = partial(resume, name, tmp_path / f"{number}.db")
        result, rows = resumed(again, len(stored), 50, rng)
        assert result.architectures == expected.architectures
        assert result.values.tobytes() == expected.values.tobytes()
        assert result.front.tolist() == expected.front.tolist()
        assert result.left_behind == expected.left_behind
        assert result.spent == expected.spent
        assert rows == stored, "nothing was evaluated twice, or in another order"


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 2, float("nan")])
def test_a_cost_is_a_share(wrong):
    with pytest.raises(UserError, match=r"is not between 0 and 1.*such as 0\.25"):
        Fidelity(evaluate=full, cost=wrong)


def test_wrong_fidelities_are_named():
    quarter, half = (Fidelity(evaluate=full, cost=c) for c in (0.25, 0.5))
    with pytest.raises(UserError, match=r"\[0\.5, 0\.25\] do not rise; give the cheapest first"):
        search(SPACE, full, fidelities=[half, quarter])
    with pytest.raises(UserError, match="do not rise"):
        search(SPACE, full, fidelities=[half, half])
    two = Fidelity(evaluate=lambda archs: np.ones((len(archs), 2)), cost=0.25)
    with pytest.raises(UserError, match=r"cost 0\.25 gives 2 objectives, evaluate gives 1"):
        search(SPACE, full, fidelities=[two])
    broken = Fidelity(evaluate=lambda archs: full(archs) * np.nan, cost=0.25)
    with pytest.raises(UserError, match=r"the fidelity of cost 0\.25 returned nan as objective 0"):
        search(SPACE, full, fidelities=[broken])
