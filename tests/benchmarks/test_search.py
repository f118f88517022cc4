"""The search benchmark: its problems, what it judges by, and one tiny run."""

import json

import numpy as np
import pytest

from benchmarks import (
    search,
    search_cells,
    search_fidelities,
    search_judgement,
    search_plot,
    search_problems,
    search_stopping,
)
from benchmarks.search_cells import Cell, Outcome
from benchmarks.search_problems import synthetic
from benchmarks.search_problems.reference import Reference
from nas.search import hypervolume
from nas.search import search as nas_search

pytestmark = pytest.mark.slow

SYNTHETIC = {
    "layered": synthetic.layered(),
    "rugged": synthetic.rugged(),
    "staged": synthetic.staged(),
}


@pytest.mark.parametrize("name", sorted(SYNTHETIC))
class TestSyntheticProblem:
    def test_values_hang_on_the_architecture_alone(self, name):
        problem, rng = SYNTHETIC[name], np.random.default_rng(0)
        architectures = [problem.space.sample(rng) for _ in range(30)]
        values = problem.black_box(architectures)
        assert values.shape == (30, len(problem.names))
        assert np.isfinite(values).all()
        np.testing.assert_allclose(problem.black_box(architectures[::-1]), values[::-1])
        again = getattr(synthetic, name)()
        np.testing.assert_allclose(again.black_box(architectures), values)

    def test_every_gene_matters_and_none_decides_alone(self, name):
        problem, rng = SYNTHETIC[name], np.random.default_rng(1)
        space = problem.space
        genes = rng.integers(0, space.cardinalities, size=(40, space.dimensions))
        values = problem.black_box([space.decode(row) for row in genes])
        for column in range(space.dimensions):
            changed = genes.copy()
            changed[:, column] = (changed[:, column] + 1) % space.cardinalities[column]
            other = problem.black_box([space.decode(row) for row in changed])
            assert (other != values).any(), space.names[column]
            correlation = np.corrcoef(genes[:, column], values[:, 0])[0, 1]
            assert abs(correlation) < 0.95

    def test_objectives_conflict(self, name):
        problem, rng = SYNTHETIC[name], np.random.default_rng(2)
        values = problem.black_box([problem.space.sample(rng) for _ in range(500)])
        assert 3 <= len(problem.front(values)) < 250


def reference(**changes):
    values = {
        "corner": np.array([1.0, 1.0]),
        "ideal": np.array([-1.0, -1.0]),
        "front": np.array([[0.0, 0.5], [0.5, 0.0]]),
        "complete": False,
    }
    return Reference(**{**values, **changes})


def test_a_share_of_hypervolume_does_not_depend_on_the_ideal_corner():
    problem, points = SYNTHETIC["staged"], np.array([[0.2, 0.6], [0.7, 0.1]])
    shares = [
        reference(ideal=np.array(ideal)).hypervolume(problem, points)
        for ideal in ([-1.0, -1.0], [-5.0, 0.0])
    ]
    assert shares[0] == pytest.approx(shares[1])
    box = {"ideal": np.zeros(2), "reference": np.ones(2)}
    assert shares[0] == pytest.approx(
        hypervolume(points, **box) / hypervolume(reference().front, **box)
    )


def test_a_better_point_joins_a_front_that_is_not_the_true_one():
    problem, better = SYNTHETIC["staged"], np.array([[0.1, 0.1], [0.9, 0.9]])
    joined = reference().joined(problem, better)
    assert joined.front.tolist() == [[0.0, 0.5], [0.5, 0.0], [0.1, 0.1]]
    assert reference(complete=True).joined(problem, better).front.tolist() == [
        [0.0, 0.5],
        [0.5, 0.0],
    ]


def outcome(level, budget=800, engine_s=8.0):
    """A curve that rises to `level` and stays there from 200 evaluations on."""
    counts = np.arange(search_cells.STEP, budget + 1, search_cells.STEP)
    return Outcome(
        volumes=level * np.minimum(1.0, counts / 200),
        front=np.zeros((0, 2)),
        engine_s=engine_s,
        evaluations=budget,
        code="",
    )


def summary(monkeypatch, levels):
    """Medians of contenders whose three seeds end at, below and above a level."""
    monkeypatch.setattr(search_judgement, "open_problem", lambda _: SYNTHETIC["staged"])
    best = reference(front=np.array([[0.0, 0.0]]))
    monkeypatch.setattr(search_judgement, "open_reference", lambda _: best)
    volume = best.volume(best.front)
    outcomes = {
        Cell(problem="staged", contender=name, seed=seed, budget=800): outcome(
            volume * level * factor
        )
        for name, level in levels.items()
        for seed, factor in enumerate((1.0, 0.9, 1.05))
    }
    return search_judgement.summarize(outcomes, ["staged"], list(levels), [100, 200, 400, 800])


def met(summary, text):
    (bar,) = [b for b in search_judgement.bars(summary, [100, 200, 400, 800]) if text in b["text"]]
    return bar["met"]


def test_medians_are_shares_of_the_best_front(monkeypatch):
    found = summary(monkeypatch, {"auto": 0.8})["staged"]["auto"]
    assert found["median"]["100"] == pytest.approx(0.4)
    assert found["median"]["800"] == pytest.approx(0.8)
    assert found["engine_s_per_evaluation"] == pytest.approx(0.01)


def test_bars_tell_ahead_from_behind(monkeypatch):
    ahead = summary(monkeypatch, {"auto": 0.9, "linas": 0.8, "auto+cheap": 0.9, "random": 0.3})
    assert met(ahead, "auto at 200")
    assert not met(ahead, "auto at 100")
    assert not met(ahead, "auto+cheap at 100")
    assert met(ahead, "never behind")
    assert met(ahead, "staged: auto itself takes 10 ms")
    behind = summary(monkeypatch, {"auto": 0.7, "linas": 0.8})
    assert not met(behind, "auto at 200")
    assert not met(behind, "linas at 800 by 0.1")
    assert met(summary(monkeypatch, {"auto": 0.7999, "linas": 0.8}), "never behind")


def test_a_search_of_its_own_for_each_budget_is_used_for_it():
    cells = [
        (Cell(problem="staged", contender="auto", seed=0, budget=budget), None)
        for budget in (50, 200, 800)
    ]
    served = [
        [search_judgement.serves(cell, cells, b) for cell, _ in cells] for b in (50, 100, 800)
    ]
    assert served == [[True, False, False], [False, True, False], [False, False, True]]


def test_a_tiny_run_is_kept_and_taken_up_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "REFERENCE_BUDGET", 300)
    for cached in (search_problems.open_problem, search_problems.open_reference):
        cached.cache_clear()
    arguments = "--problems staged rugged --algorithms random nsga2 nsga2+cheap --budgets 20 50"
    arguments += " --seeds 2 --workers 1 --plot search.svg"
    with pytest.raises(SystemExit) as end:
        search.main(arguments.split())
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert "10 of 10" in printed.err  # rugged knows nothing at no cost
    files = sorted(tmp_path.rglob("cells/**/*.json"))
    assert len(files) == 10
    before = [file.stat().st_mtime_ns for file in files]
    results = json.loads((tmp_path / "runs/benchmarks/search.json").read_text())
    found = results["problems"]["staged"]["random"]
    assert 0 < found["median"]["20"] <= found["median"]["50"] <= 1
    assert not results["other_code"]
    assert (tmp_path / "search.svg").read_text().startswith("<svg")
    with pytest.raises(SystemExit):
        search.main(arguments.split())
    assert [file.stat().st_mtime_ns for file in files] == before
    assert capsys.readouterr().out == printed.out
    with pytest.raises(SystemExit):
        search.main([*arguments.split(), "--fresh"])
    assert all(file.stat().st_mtime_ns > time for file, time in zip(files, before, strict=True))
    for cached in (search_problems.open_problem, search_problems.open_reference):
        cached.cache_clear()


def test_every_algorithm_of_the_benchmark_is_anytime():
    for name in ("random", "nsga2"):
        assert search_cells.is_anytime(name, [20, 60])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--algorithms nsga9", "contender nsga9 is not known; choose of auto, "),
        ("--budgets 55", "are not all multiples of 10"),
        ("--problems nowhere", "invalid choice"),
    ],
)
def test_wrong_options_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        search.main(arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_picture_has_a_band_and_a_line_for_each(monkeypatch):
    found = summary(monkeypatch, {"auto": 0.9, "linas": 0.8})
    text = search_plot.plot(found, {"staged": "staged & more"})
    assert text.count("<polyline") == text.count("<polygon") == 2
    assert "staged &amp; more" in text


def test_one_long_search_tells_where_a_bound_on_the_gain_would_stop():
    problem = SYNTHETIC["staged"]

    def run(**bound):
        return nas_search(problem.space, problem.evaluate, problem.cheap, budget=45, **bound)

    long = run()
    for min_gain in (3e-2, 3e-3):
        short = run(min_gain=min_gain)
        assert short.stopped == "gain"
        assert search_stopping.stop(long, min_gain) == len(short.architectures) < 45
    assert search_stopping.stop(long, 0) == 45


def test_hypervolume_over_cost_counts_full_evaluations_only():
    reference = Reference(
        corner=np.array([4.0, 4.0]),
        ideal=np.array([0.0, 0.0]),
        front=np.array([[1.0, 1.0]]),
        complete=True,
    )
    log = search_fidelities.Log(
        calls=[(0.25, 4), (1, 1), (0.25, 4), (1, 1)], values=np.array([[2.5, 2.5], [1.0, 1.0]])
    )
    problem = SYNTHETIC["staged"]

    def found(*costs, **how):
        return log.volumes(reference, problem, costs, **how).tolist()

    assert found(1.9, 2, 3.9, 4) == [0, 0.25, 0.25, 1]
    assert found(1.7, 1.75, 3.4, 3.5, nested=True) == [0, 0.25, 0.25, 1]
    assert found(1.3, 1.4, 2.7, 2.8, look=0.1) == [0, 0.25, 0.25, 1]
    assert log.promoted == 0.25
