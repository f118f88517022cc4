"""Four ways to a front of subnets with precision policies, at the same number of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.run import Run
from nas.search import non_dominated, search, select_front
from nas.stages.known_table import load_predictors
from nas.stages.policies import block_bytes, block_latencies, proposals, without_slow_blocks
from nas.stages.search import Objectives
from nas.stages.supernet import TrainedSupernet
from search_spaces import Architecture, TransformerSpace, space_from_json
from search_spaces.schemes import FULL

Floats = NDArray[np.float64]

METHODS = ("fp32", "int8", "autoquantize", "joint")
UNIFORM = "w8a8"
LATER = 4
"""One in so many evaluations is for policies, where they come after the architecture."""


class Methods:
    """A trained supernet with a measured table, and the ways to search it.

    All take the uniform subnets first, in fp32; `joint` their proposed policies too.

    Args:
        run: Its directory has the table.
        supernet: Trained, of a space with policies.
        budget: Evaluations of each way.
    """

    def __init__(self, run: Run, supernet: TrainedSupernet, budget: int) -> None:
        self.run, self.supernet, self.budget = run, supernet, budget
        predictors = load_predictors(run, supernet.space)
        self.space = without_slow_blocks(supernet.space, predictors)
        self.plain = space_from_json(
            {k: v for k, v in self.space.to_json().items() if k != "precision"}
        )
        self.objectives = Objectives(run, self.space, predictors)
        self.quality = self.objectives.evaluated[0]
        self.names = (*(f"{workload}_ms" for workload in run.config.calls), "size_bytes")
        """Objectives beside the quality."""
        self.costs = [
            *block_latencies(predictors),
            block_bytes(self.space, self.objectives.workload),
        ]

    def front(self, method: str, seed: int) -> list[Architecture]:
        """What a way finds: the architectures that no other of its own dominates."""
        uniform = self.space.uniform(5)
        if method == "joint":
            initial = [*uniform, *proposals(self.supernet, self.space, uniform, self.costs)]
            return self._search(self.space, initial, self.budget, seed)
        if method == "fp32":
            return self._search(self.plain, self.plain.uniform(5), self.budget, seed)
        later = self.budget // LATER
        full = self._search(self.plain, self.plain.uniform(5), self.budget - later, seed)
        if method == "int8":
            tried = [self.uniform(arch) for arch in self.spread(full, later)]
        else:
            few = self.spread(full, max(later // 3, 1))
            tried = proposals(self.supernet, self.space, few, self.costs)[:later]
        together = list(dict.fromkeys([*full, *tried]))
        return [together[index] for index in non_dominated(self.values(together))]

    def uniform(self, arch: Architecture, scheme: str = UNIFORM) -> Architecture:
        """The subnet in one scheme, wherever that pays."""
        return self.space.architecture(dict(self.supernet.space.with_scheme(arch, scheme)))

    def values(self, some: Sequence[Architecture], split: str = "validation") -> Floats:
        """Quality on a split, predicted latencies and bytes, shape `(n, m)`."""
        return np.hstack([self.qualities(some, split), self.cheap(some)])

    def qualities(self, some: Sequence[Architecture], split: str) -> Floats:
        """Shape `(n, 1)`; less is better."""
        found = self.supernet.metrics(some, split)
        return np.array([[metrics[self.quality]] for metrics in found])

    def cheap(self, some: Sequence[Architecture]) -> Floats:
        """Predicted latencies, and bytes of the weights, shape `(n, m - 1)`."""
        return np.stack([self.objectives.cost(some, name) for name in self.names], axis=1)

    def spread(self, some: Sequence[Architecture], count: int) -> list[Architecture]:
        """At most `count` of a front that stand for it, as `nas export` chooses them."""
        values = self.values(some)
        return [some[index] for index in select_front(values, non_dominated(values), count)]

    def _search(
        self, space: TransformerSpace, initial: Sequence[Architecture], budget: int, seed: int
    ) -> list[Architecture]:
        """The front of a search, as architectures of the space with policies."""
        result = search(
            space,
            lambda some: self.qualities([self._with_policy(one) for one in some], "validation"),
            cheap=lambda some: self.cheap([self._with_policy(one) for one in some]),
            budget=budget,
            seed=seed,
            initial=initial,
        )
        return [self._with_policy(result.architectures[index]) for index in result.front]

    def _with_policy(self, arch: Architecture) -> Architecture:
        return self.space.architecture({**dict.fromkeys(self.space.scheme_genes, FULL), **arch})
