"""C-TAEA: two archives, for what is bounded (Li et al., 2019, 10.1109/TEVC.2018.2855411)."""

from __future__ import annotations

import numpy as np

from nas.search.evolution import indices_of, individuals, random_pairs, winners
from nas.search.nsga3 import reference_directions
from nas.search.pareto import Indices, non_dominated
from nas.search.problem import Floats


class TwoArchiveSelection:
    """Convergence and diversity archive, updated by pymoo. See `SelectionFactory`.

    The diversity archive does not care about bounds, so that it can lead around what is infeasible.
    Objectives are scaled by their range first: niches would hang on units otherwise. Both archives
    have as many members as there are reference directions; until so many were evaluated, they hold
    everything.
    """

    def __init__(self, *, size: int, objectives: int, rng: np.random.Generator) -> None:
        directions = reference_directions(objectives, size)
        # One objective has one direction only, but an archive needs more than one member.
        self._directions = np.repeat(directions, size if objectives == 1 else 1, axis=0)
        self._rng = rng
        self._values = np.zeros((0, objectives))
        self._violation = np.zeros(0)
        self._convergence: Indices = np.zeros(0, dtype=np.int64)
        self._diversity: Indices = np.zeros(0, dtype=np.int64)

    def survive(self, values: Floats, violation: Floats, new: Indices) -> None:
        """See `Selection.survive`."""
        from pymoo.algorithms.moo.ctaea import CADASurvival

        low, high = values.min(axis=0), values.max(axis=0)
        self._values = (values - low) / np.where(high > low, high - low, 1.0)
        self._violation = violation
        convergence = np.concatenate([self._convergence, new])
        diversity = np.union1d(self._diversity, new)
        if len(values) > len(self._directions):
            survival = CADASurvival(self._directions)
            survival.ideal_point = np.zeros(values.shape[1])
            archive = survival._updateCA(
                individuals(convergence, self._values, violation),
                len(self._directions),
                random_state=self._rng,
            )
            convergence = indices_of(archive)
            diversity = indices_of(
                survival._updateDA(
                    archive,
                    individuals(diversity, self._values, violation),
                    len(self._directions),
                )
            )
        self._convergence, self._diversity = convergence, diversity

    @property
    def living(self) -> Indices:
        """See `Selection.living`."""
        return np.union1d(self._convergence, self._diversity)

    def pairs(self, count: int) -> Indices:
        """One parent of the better archive, the other of it with the chance it has earned."""
        both = np.concatenate([self._convergence, self._diversity])
        best = set(non_dominated(self._values[both]).tolist())
        boundary = len(self._convergence)
        share = sum(place < boundary for place in best) / len(both)
        others = len(best) / len(both) - share
        first = self._chosen(np.full(count, share > others))
        second = self._chosen(self._rng.random(count) < share)
        return np.stack([first, second], axis=1)

    def _chosen(self, converged: np.ndarray) -> Indices:
        """Tournament winners: of the convergence archive where wanted, else of the other."""
        result = np.zeros(len(converged), dtype=np.int64)
        for archive, wanted in ((self._convergence, converged), (self._diversity, ~converged)):
            pairs = archive[random_pairs(len(archive), int(wanted.sum()), self._rng)]
            result[wanted] = winners_by_dominance(pairs, self._values, self._violation, self._rng)
        return result


def winners_by_dominance(
    pairs: Indices, values: Floats, violation: Floats, rng: np.random.Generator
) -> Indices:
    """Winners of tournaments: feasible over infeasible, then by dominance, then by chance."""
    a, b = values[pairs[:, 0]], values[pairs[:, 1]]
    feasible = violation[pairs] == 0
    better = np.stack(
        [
            (a <= b).all(axis=1) & (a < b).any(axis=1),
            (b <= a).all(axis=1) & (b < a).any(axis=1),
        ],
        axis=1,
    )
    wins = feasible & (~feasible[:, ::-1] | better)
    places = np.arange(2 * len(pairs)).reshape(-1, 2)
    chosen = winners(places, [-wins.astype(np.float64).reshape(-1)], rng)
    return pairs.reshape(-1)[chosen]
