"""Medians of the search benchmark, and the bars they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.search_cells import CHEAP, STEP, Cell, Outcome
from benchmarks.search_problems import open_problem, open_reference

OURS, RIVAL = "auto", "linas"
BEHIND = 0.001
"""Medians that lie closer together than this share of the front's hypervolume are alike."""
ENGINE_BAR_S = 0.05

Summary = dict[str, dict[str, dict[str, Any]]]
"""Figures by problem and contender."""


def summarize(
    outcomes: Mapping[Cell, Outcome],
    problems: Sequence[str],
    contenders: Sequence[str],
    budgets: Sequence[int],
) -> Summary:
    """Hypervolume relative to the best-known front: median and quartiles over the seeds."""
    summary: Summary = {}
    for name in problems:
        problem = open_problem(name)
        fronts = [found.front for cell, found in outcomes.items() if cell.problem == name]
        reference = open_reference(name).joined(problem, np.vstack(fronts))
        best = reference.volume(reference.front)
        summary[name] = {}
        for contender in contenders:
            cells = [
                (cell, found)
                for cell, found in outcomes.items()
                if (cell.problem, cell.contender) == (name, contender)
            ]
            if not cells:
                continue
            curves = {
                budget: np.array(
                    [
                        found.volumes[: budget // STEP]
                        for cell, found in cells
                        if serves(cell, cells, budget)
                    ]
                )
                / best
                for budget in budgets
            }
            curve = curves[max(budgets)]
            low, middle, high = np.quantile(curve, (0.25, 0.5, 0.75), axis=0)
            summary[name][contender] = {
                "median": {str(b): float(np.median(rows[:, -1])) for b, rows in curves.items()},
                "by_seed": {str(b): rows[:, -1].tolist() for b, rows in curves.items()},
                "curve": {
                    "step": STEP,
                    "low": low.tolist(),
                    "median": middle.tolist(),
                    "high": high.tolist(),
                },
                "engine_s_per_evaluation": max(
                    found.engine_s / max(1, found.evaluations) for _, found in cells
                ),
                "true_front": reference.complete,
            }
    return summary


def serves(cell: Cell, cells: Sequence[tuple[Cell, Outcome]], budget: int) -> bool:
    """Whether this run shows what its contender does with a budget: the smallest that suffices."""
    enough = [c.budget for c, _ in cells if c.seed == cell.seed and c.budget >= budget]
    return cell.budget == min(enough, default=-1)


def bars(summary: Summary, budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Each bar that these figures can judge: its text, whether it is met, whether it counts."""
    judged: list[dict[str, Any]] = []
    for problem, found in summary.items():
        if OURS in found and RIVAL in found:
            judged += _against(problem, found, OURS, 200, counts=True)
            judged += _against(problem, found, OURS, 100, counts=False)
        if OURS + CHEAP in found and RIVAL in found:
            judged += _against(problem, found, OURS + CHEAP, 100, counts=True)
        if OURS in found:
            judged.append(_never_behind(problem, found, budgets))
        for contender in (OURS, OURS + CHEAP):
            if contender in found:
                seconds = found[contender]["engine_s_per_evaluation"]
                judged.append(
                    {
                        "text": f"{problem}: {contender} itself takes {1000 * seconds:.0f} ms an "
                        f"evaluation, at most {1000 * ENGINE_BAR_S:.0f}",
                        "met": seconds <= ENGINE_BAR_S,
                        "counts": True,
                    }
                )
    return judged


def _against(
    problem: str, found: Mapping[str, Any], ours: str, budget: int, *, counts: bool
) -> list[dict[str, Any]]:
    """Ours at a budget against LINAS at 400."""
    rival = found[RIVAL]["median"].get("400")
    own = found[ours]["median"].get(str(budget))
    if rival is None or own is None:
        return []
    curve = np.array(found[ours]["curve"]["median"])
    there = np.flatnonzero(curve >= rival)
    when = f"reaches it at {STEP * (there[0] + 1)}" if len(there) else "never reaches it"
    goal = "" if counts else " (goal beyond)"
    return [
        {
            "text": f"{problem}: {ours} at {budget} {own:.4f}, {RIVAL} at 400 {rival:.4f}, "
            f"{when}{goal}",
            "met": own >= rival - BEHIND,
            "counts": counts,
        }
    ]


def _never_behind(problem: str, found: Mapping[str, Any], budgets: Sequence[int]) -> dict[str, Any]:
    """Ours against every other black box at every budget."""
    behind = []
    for contender, other in found.items():
        if contender == OURS or contender.endswith(CHEAP):
            continue
        for budget in map(str, budgets):
            gap = other["median"][budget] - found[OURS]["median"][budget]
            if gap > BEHIND:
                behind.append(f"{contender} at {budget} by {gap:.4f}")
    return {
        "text": f"{problem}: {OURS} is never behind"
        + (f", but {', '.join(behind)}" if behind else ""),
        "met": not behind,
        "counts": True,
    }
