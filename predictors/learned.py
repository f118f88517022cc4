"""Latency of architectures learned from whole subnets alone: where a table is too dear."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from latency.noise import Noise
from predictors.blocks import BlockCounts
from predictors.calibration import folds, relative_std
from predictors.design import choose_rows
from predictors.protocol import Floats, checked_latency
from predictors.regressors import REGRESSORS, Function
from search_spaces.blocks import Block
from search_spaces.errors import UserError
from search_spaces.space import Architecture
from search_spaces.transformer import TransformerSpace

LEAST_SUBNETS = 5
UNLEARNED_STD = 0.1
EXPECTED_PENALTY = 1e-2
"""Of the weights of terms, each of which is worth a share of the latency; see `design`."""


class LearnedPredictor:
    """Predicts latency from the terms of a cost model, learned from whole subnets.

    A block costs something, and something for each of its widths, their products and squares; a
    subnet's terms are sums of these over its blocks. What they weigh is learned.

    Args:
        space: The search space.
        regressor: Name of one of `REGRESSORS`.

    Raises:
        UserError: There is no such regressor.
    """

    def __init__(self, space: TransformerSpace, regressor: str = "ridge") -> None:
        if regressor not in REGRESSORS:
            raise UserError(f"regressor {regressor!r} is not one of {tuple(REGRESSORS)}")
        self.space = space
        self.regressor = regressor
        self.held_out: Floats = np.empty(0)
        self.std = UNLEARNED_STD
        self._function: Function | None = None

    def propose(self, pool: Sequence[Architecture], count: int) -> list[Architecture]:
        """The subnets of `pool` to measure; see `predictors.design`.

        Raises:
            UserError: The pool has fewer than `count`.
        """
        terms = self.terms(pool)
        terms = terms / np.maximum(terms.mean(axis=0), 1e-12)
        held = np.full(terms.shape[1], EXPECTED_PENALTY)
        # Latency is expected to be about what all terms add up to
        chosen = choose_rows(
            terms.shape[1] * terms / terms.sum(axis=1, keepdims=True), count, precision=held
        )
        return [pool[index] for index in chosen]

    def fit(
        self,
        architectures: Sequence[Architecture],
        latency_ms: ArrayLike,
        *,
        noise: Noise | None = None,
    ) -> LearnedPredictor:
        """See `ArchitecturePredictor`; needs 5 whole subnets."""
        measured = checked_latency(architectures, latency_ms, LEAST_SUBNETS)
        learn, terms = REGRESSORS[self.regressor], self.terms(architectures)
        fold = folds(len(measured))
        predicted = np.empty_like(measured)
        for one in range(fold.max() + 1):
            rest, out = fold != one, fold == one
            predicted[out] = learn(terms[rest], measured[rest])(terms[out])
        self.held_out = predicted / measured - 1
        self.std = relative_std(self.held_out, unfitted=UNLEARNED_STD, noise=noise)
        self._function = learn(terms, measured)
        return self

    def restore(
        self, architectures: Sequence[Architecture], latency_ms: ArrayLike, std: float
    ) -> LearnedPredictor:
        """Predict as after an earlier `fit` on the same subnets.

        Takes a fraction of the time: the error is known, so nothing is left out.

        Args:
            architectures: The subnets, in the same order.
            latency_ms: Their latency in ms, shape `(n,)`.
            std: The standard deviation that was found, as a share.

        Raises:
            UserError: A latency is not above 0 or not finite, or there are too few.
        """
        measured = checked_latency(architectures, latency_ms, LEAST_SUBNETS)
        self._function = REGRESSORS[self.regressor](self.terms(architectures), measured)
        self.held_out, self.std = np.empty(0), std
        return self

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """See `ArchitecturePredictor`.

        Raises:
            UserError: Nothing was learned yet.
        """
        if self._function is None:
            raise UserError("this predictor has not learned anything yet; call fit first")
        if not len(architectures):
            return np.empty(0), np.empty(0)
        mean = self._function(self.terms(architectures))
        return mean, self.std * mean

    def widen(self, factor: float) -> None:
        """See `ArchitecturePredictor`."""
        self.std = round(factor * self.std, 6)

    def terms(self, architectures: Sequence[Architecture]) -> Floats:
        """Sums over the blocks of what a block may cost for, shape `(n, f)`."""
        sums: Floats = self._counts(architectures) @ self._block_terms
        return sums

    @cached_property
    def _counts(self) -> BlockCounts:
        return BlockCounts(self.space)

    @cached_property
    def _block_terms(self) -> Floats:
        """Terms of each block in columns of its kind, shape `(blocks, f)`."""
        blocks = self._counts.blocks
        columns = [
            [term if block.kind == kind else 0.0 for block, term in zip(blocks, terms, strict=True)]
            for kind in ("fixed", "attention", "ffn")
            for terms in zip(*(_block_terms(block, kind) for block in blocks), strict=True)
        ]
        return np.array(columns).T


def _block_terms(block: Block, kind: str) -> tuple[float, ...]:
    """What a block of some kind costs for, widths in units of 64."""
    embed = block.width("embed") / 64
    if kind == "fixed":
        return (1.0, embed, embed**2)
    inner = {"attention": "heads", "ffn": "ffn"}[kind]
    width = dict(block.widths).get(inner, 0) / (1 if kind == "attention" else 64)
    # An attention block comes with an FFN: what a layer costs for anyway is counted there.
    own = (width, width * embed, width**2)
    return own if kind == "attention" else (1.0, embed, embed**2, *own)
