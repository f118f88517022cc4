"""Would botorch's acquisition and Gaussian process search better than `guided`?

botorch is no dependency of this project. For this trial install it beside the project:

    pip install --target FOLDER --no-deps botorch gpytorch linear_operator pyro-ppl pyro-api \
        jaxtyping wadler-lindig opt_einsum pyre-extensions typing-inspect multipledispatch
    PYTHONPATH=FOLDER python -m benchmarks.botorch_trial

`botorch` is a search behind the same ask and tell: the initial population of `guided`; a
`SingleTaskGP` over one-hot genes and the cheap columns for what is evaluated; the evolution of
`guided` on its mean for 300 candidates; of them batches of 5 by qLogNEHVI (arXiv:2105.08195,
arXiv:2310.20708), greedily. Cheap columns are known to both. Prints the median hypervolume as a
share of the best-known front's (see `benchmarks.search`), and CPU time an evaluation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import table, write_results
from benchmarks.search_problems import open_problem, open_reference
from nas.search import ALGORITHMS, non_dominated, search
from nas.search.candidates import Candidates
from nas.search.directions import Box, draw_directions, lengths
from nas.search.initial import initial_population
from nas.search.inner_search import RowHash, evolve
from nas.search.problem import Floats, Genes, Problem
from search_spaces import Architecture

BATCH, POOL, DIRECTIONS, SAMPLES = 5, 300, 64, 64


class BotorchSearch:
    """Expected hypervolume improvement as botorch has it; see `nas.search.Algorithm`."""

    batch = BATCH
    expected_gain = None

    def __init__(
        self,
        problem: Problem,
        *,
        candidates: Candidates,
        rng: np.random.Generator,
        population: int,
        initial: Sequence[Architecture],
    ) -> None:
        self._problem, self._space, self._rng = problem, problem.space, rng
        self._candidates = candidates
        self._queue = initial_population(problem, candidates, 2 * population // 5, rng, initial)
        self._genes: Genes = np.zeros((0, self._space.dimensions), dtype=np.int64)
        self._values: Floats = np.zeros((0, 0))
        self._first = np.cumsum(self._space.cardinalities) - self._space.cardinalities

    def ask(self, count: int) -> list[Architecture]:
        """The initial population, then batches of the largest acquisition."""
        batch, self._queue = self._queue[:count], self._queue[count:]
        if not batch:
            batch = self._candidates.admit(self._promising(count), count, repair=False)
            batch += self._candidates.fill(count - len(batch), near=self._genes)
        return batch

    def tell(self, architectures: Sequence[Architecture], values: Floats) -> None:
        """Keep what was evaluated."""
        self._genes = np.concatenate([self._genes, self._space.encode_all(architectures)])
        self._values = np.concatenate([self._values.reshape(-1, values.shape[1]), values])

    def _promising(self, count: int) -> Genes:
        from botorch import fit_gpytorch_mll
        from botorch.acquisition.multi_objective.logei import (
            qLogNoisyExpectedHypervolumeImprovement,
        )
        from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
        from botorch.models import SingleTaskGP
        from botorch.models.transforms.input import Normalize
        from botorch.optim import optimize_acqf_discrete
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(int(self._rng.integers(2**31)))
        mean, spread = self._values.mean(axis=0), self._values.std(axis=0)
        scaled = (self._values - mean) / np.where(spread > 0, spread, 1.0)
        cheap_width = self._problem.cheap_width
        learned = scaled.shape[1] - cheap_width
        box = Box.around(scaled)

        def inputs(genes: Genes) -> torch.Tensor:
            cheap = self._problem.cheap_values([self._space.decode(row) for row in genes])
            return torch.from_numpy(
                np.hstack([self._one_hot(genes), ((cheap - mean[learned:]) / spread[learned:])])
            )

        # botorch maximises.
        x, y = inputs(self._genes), torch.from_numpy(-scaled[:, :learned])
        known = list(range(x.shape[1] - cheap_width, x.shape[1]))
        model = SingleTaskGP(x, y, input_transform=Normalize(x.shape[1], indices=known))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        towards = draw_directions(DIRECTIONS, scaled.shape[1], self._rng)

        @torch.no_grad()
        def score(genes: Genes) -> Floats:
            at = inputs(genes)
            values = torch.cat([-model.posterior(at).mean, at[:, at.shape[1] - cheap_width :]], 1)
            return lengths(box.gains(values.numpy()), towards)

        start = self._genes[non_dominated(self._values)]
        rows, scores = evolve(self._space, score, start, self._rng, generations=30, children=128)
        number = RowHash(self._space.dimensions)
        fresh = ~np.isin(number(rows), number(self._genes))
        rows, scores = rows[fresh], scores[fresh]
        ranks = np.argsort(np.argsort(-scores, axis=0), axis=0).min(axis=1)
        pool = rows[np.argsort(ranks, kind="stable")[:POOL]]

        def all_columns(samples: torch.Tensor, X: torch.Tensor | None = None) -> torch.Tensor:
            assert X is not None
            known = -X[..., X.shape[-1] - cheap_width :]
            return torch.cat([samples, known.expand(*samples.shape[:-1], cheap_width)], dim=-1)

        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=torch.from_numpy(-box.reference),
            X_baseline=x,
            objective=GenericMCMultiOutputObjective(all_columns),
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES])),
            prune_baseline=True,
            cache_root=False,
        )
        choices = inputs(pool)
        best, _ = optimize_acqf_discrete(acquisition, q=count, choices=choices, unique=True)
        index = [int((choices == row).all(dim=1).nonzero()[0, 0]) for row in best]
        return pool[index]

    def _one_hot(self, genes: Genes) -> Floats:
        columns: NDArray[np.float64] = np.zeros((len(genes), int(self._space.cardinalities.sum())))
        row, gene = np.nonzero(self._space.active_mask(genes))
        columns[row, self._first[gene] + genes[row, gene]] = 1.0
        return columns


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each problem and search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=["small", "digits", "staged"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[50, 100])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    ALGORITHMS["botorch"] = BotorchSearch
    rows, results = [], {}
    for name in options.problems:
        problem, reference = open_problem(name), open_reference(name)
        for algorithm in ("guided", "botorch"):
            shares, took_ms = [], []
            for seed in range(options.seeds):
                begun_s = time.process_time()
                result = search(
                    problem.space,
                    problem.evaluate,
                    problem.cheap,
                    budget=max(options.budgets),
                    algorithm=algorithm,
                    seed=seed,
                )
                took_ms.append(1000 * (time.process_time() - begun_s) / max(options.budgets))
                shares.append(
                    [reference.hypervolume(problem, result.values[:n]) for n in options.budgets]
                )
            medians = [f"{100 * share:.2f}" for share in np.median(shares, axis=0)]
            rows.append([name, algorithm, *medians, f"{np.median(took_ms):.0f}"])
            found: dict[str, Any] = {"shares": shares, "ms": took_ms}
            results[f"{name} {algorithm}"] = found
    print(table(["problem", "search", *map(str, options.budgets), "ms"], rows))
    print(f"\n{write_results('botorch_trial', results)}")


if __name__ == "__main__":
    main()
