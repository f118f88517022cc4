"""Which genes matter, from what a search has evaluated, as it stands in `search.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.search.one_thread import one_thread
from nas.search.result import SearchResult
from predictors.gene_importance import FEWEST, MOST, GeneImportance, Share, Shares
from search_spaces import Architecture, SearchSpace

_DIGITS = 4


def describe_importance(
    space: SearchSpace,
    result: SearchResult,
    evaluated: Sequence[str],
    cheap: Sequence[str],
    cheap_values: Callable[[Sequence[Architecture]], NDArray[np.float64]],
    seed: int,
) -> dict[str, Any]:
    """What each gene explains of each objective over random subnets, and the choices of each.

    Args:
        space: The space that was searched.
        result: Its columns are those of `evaluated`, then those of `cheap`.
        evaluated: Names of the objectives that were evaluated; those of too few evaluations, or of
            equal ones, are left out.
        cheap: Names of the objectives known at no cost.
        cheap_values: These objectives of architectures, shape `(n, k)`.
        seed: Seed of the random subnets.
    """
    with one_thread():
        importance = GeneImportance(space, seed)
        genes = space.encode_all(result.architectures)
        found = {
            name: importance.of_evaluated(genes, result.values[:, column])
            for column, name in enumerate(evaluated)
        }
        known = cheap_values(importance.architectures)
        found |= {name: importance.of_known(known[:, column]) for column, name in enumerate(cheap)}
    return {
        "evaluations": min(len(result.architectures), MOST),
        "fewest": FEWEST,
        "kinds": importance.kinds,
        "choices": {
            name: list(space.choices[name]) for of in importance.kinds.values() for name in of
        },
        "objectives": {name: _json(shares) for name, shares in found.items() if shares},
    }


def _json(shares: Shares) -> dict[str, Any]:
    return {
        "r2": None if shares.r2 is None else round(shares.r2, _DIGITS),
        "single": _rounded(shares.single),
        "kinds": {name: _rounded(share) for name, share in shares.kinds.items()},
        "genes": {name: _rounded(share) for name, share in shares.genes.items()},
    }


def _rounded(share: Share) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in asdict(share).items()}
