"""Small networks that predict objectives, their noise, and their own doubt (arXiv:2205.11656)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from nas.search.problem import Floats, Genes
from search_spaces import SearchSpace

HIDDEN = 64
DROPOUT = 0.1
FIRST_STEPS, STEPS = 300, 40
"""Training steps of the first fit and of those that go on from it."""
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
SAMPLES = 16
"""Passes with dropout whose spread is the doubt."""
DESCENT_STEPS, DESCENT_RATE = 20, 0.1
_BATCH = 128


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within it, torch uses one thread: sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Surrogate:
    """Mean and noise of every objective, by one network; the first one's doubt, by another.

    Objectives are scaled to mean 0 and standard deviation 1. The first network has a Gaussian
    likelihood with a variance of its own for every input, and dropout; its doubt is the spread of
    passes with dropout (Monte Carlo dropout, arXiv:1506.02142). The second network learns that
    spread, so that a gradient step on the input costs one pass instead of many.

    Args:
        space: Genes become one-hot columns; a gene that does not count has none.
        objectives: Number of objectives, m.
        seed: Seed of weights, dropout and batches.
    """

    def __init__(self, space: SearchSpace, objectives: int, seed: int) -> None:
        self._space = space
        self._first = np.cumsum(space.cardinalities) - space.cardinalities
        self._width = int(space.cardinalities.sum())
        self._generator = torch.Generator().manual_seed(seed)
        self._teacher = self._network(2 * objectives)
        self._student = self._network(objectives)
        parameters = [*self._teacher, *self._student]
        self._optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self._mean = np.zeros(objectives)
        self._std = np.ones(objectives)
        self._fitted = False

    def fit(self, genes: Genes, values: Floats) -> None:
        """Learn from `(n, d)` genes and `(n, m)` objectives; goes on from an earlier fit."""
        self._mean, std = values.mean(axis=0), values.std(axis=0)
        self._std = np.where(std > 0, std, 1.0)
        inputs, targets = self._one_hot(genes), torch.from_numpy(self.scaled(values, slice(None)))
        for _ in range(STEPS if self._fitted else FIRST_STEPS):
            rows = torch.randint(
                len(inputs), (min(_BATCH, len(inputs)),), generator=self._generator
            )
            mean, variance = self._moments(self._pass(self._teacher, inputs[rows], dropped=True))
            self._step(((mean - targets[rows]) ** 2 / variance + variance.log()).mean())
        # Doubt is asked for far from what is known, so it is learned there too.
        anywhere = torch.randint(
            2**31, (_BATCH, self._space.dimensions), generator=self._generator
        ).numpy()
        inputs = torch.cat([inputs, self._one_hot(anywhere % self._space.cardinalities)])
        doubt = self._spread(inputs)
        for _ in range(STEPS):
            rows = torch.randint(len(inputs), (_BATCH,), generator=self._generator)
            self._step(((self._doubt(inputs[rows]) - doubt[rows]) ** 2).mean())
        self._fitted = True

    def _step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()

    @torch.no_grad()
    def predict(self, genes: Genes) -> tuple[Floats, Floats, Floats]:
        """Mean, noise and doubt (standard deviations), scaled, each `(n, m)`."""
        inputs = self._one_hot(genes)
        mean, variance = self._moments(self._pass(self._teacher, inputs, dropped=False))
        return mean.numpy(), variance.sqrt().numpy(), self._doubt(inputs).numpy()

    def descend(self, genes: Genes, weights: Floats, ideal: Floats) -> Genes:
        """Gradient steps on the one-hot genes, then the nearest architecture.

        Args:
            genes: Where to start, `(n, d)`.
            weights: Weights of the scaled objectives in the scalarisation, `(n, m)`; a row of
                zeros goes where noise and doubt are largest.
            ideal: Scaled objectives that the scalarisation measures from, `(m,)`.

        Returns:
            Choice indices, `(n, d)`, not canonical.
        """
        inputs = self._one_hot(genes).requires_grad_(True)
        weight, origin = torch.from_numpy(weights), torch.from_numpy(ideal)
        explore = weight.sum(dim=1) == 0
        steps = torch.optim.Adam([inputs], lr=DESCENT_RATE)
        for _ in range(DESCENT_STEPS):
            mean, variance = self._moments(self._pass(self._teacher, inputs, dropped=False))
            unsure = variance.sqrt() + self._doubt(inputs)
            weighted = (mean - unsure - origin) * weight
            score = weighted.amax(dim=1) + 0.05 * weighted.sum(dim=1)
            loss = torch.where(explore, -unsure.sum(dim=1), score).sum()
            (inputs.grad,) = torch.autograd.grad(loss, [inputs])
            steps.step()
            with torch.no_grad():
                inputs.clamp_(0.0, 1.0)
        found = inputs.detach().numpy()
        # The one-hot rows nearest to a point have their ones at its largest entries.
        columns = [
            found[:, first : first + count].argmax(axis=1)
            for first, count in zip(self._first, self._space.cardinalities, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.int64)

    def scaled(self, values: Floats, columns: slice) -> Floats:
        """Objectives of the given columns with mean 0 and standard deviation 1."""
        return np.asarray((values - self._mean[columns]) / self._std[columns])

    def restored(self, scaled: Floats) -> Floats:
        """Objectives in their own units, `(n, m)`."""
        return np.asarray(scaled * self._std + self._mean)

    def _network(self, outputs: int) -> list[nn.Parameter]:
        """Weights and biases of two hidden layers."""
        parameters = []
        for rows, columns in ((self._width, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs)):
            scale = (2.0 / rows) ** 0.5
            weight = torch.randn(rows, columns, generator=self._generator, dtype=torch.float64)
            parameters.append(nn.Parameter(weight * scale))
            parameters.append(nn.Parameter(torch.zeros(columns, dtype=torch.float64)))
        return parameters

    def _pass(self, network: list[nn.Parameter], inputs: Tensor, *, dropped: bool) -> Tensor:
        hidden = inputs
        for layer in range(2):
            hidden = nn.functional.silu(hidden @ network[2 * layer] + network[2 * layer + 1])
            if dropped:
                kept = torch.rand(hidden.shape, generator=self._generator, dtype=torch.float64)
                hidden = hidden * (kept >= DROPOUT) / (1.0 - DROPOUT)
        return hidden @ network[4] + network[5]

    @staticmethod
    def _moments(outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = outputs.chunk(2, dim=1)
        return mean, nn.functional.softplus(raw) + 1e-4

    @torch.no_grad()
    def _spread(self, inputs: Tensor) -> Tensor:
        """Standard deviation of the mean over passes with dropout, `(n, m)`."""
        many = inputs.repeat(SAMPLES, 1)
        means, _ = self._moments(self._pass(self._teacher, many, dropped=True))
        return means.reshape(SAMPLES, len(inputs), -1).std(dim=0)

    def _doubt(self, inputs: Tensor) -> Tensor:
        return nn.functional.softplus(self._pass(self._student, inputs, dropped=False))

    def _one_hot(self, genes: Genes) -> Tensor:
        columns = torch.zeros(len(genes), self._width, dtype=torch.float64)
        row, gene = np.nonzero(self._space.active_mask(genes))
        columns[row, self._first[gene] + genes[row, gene]] = 1.0
        return columns
