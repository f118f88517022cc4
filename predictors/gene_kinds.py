"""What genes of one kind contribute alike: sums over the layers of a space."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]

_NUMBER = re.compile(r"\d+")


class GeneKinds:
    """Sums of features over the genes of one kind, and of products within a layer.

    Spaces repeat themselves: `heads.0` to `heads.11` are one gene in twelve layers, and what a
    choice contributes in one layer says something of what it contributes in another. Genes are of
    one kind if their names differ in numbers only and they have the same choices; they are of one
    layer if these numbers are the same. A space without such names has no sums.

    Args:
        space: Any space.
        groups: Group of each feature, shape `(f,)`, see `GeneFeatures.groups`.
    """

    def __init__(self, space: SearchSpace, groups: NDArray[np.int64]) -> None:
        kinds: dict[tuple[str, str, bool, bool], dict[tuple[str, ...], Columns]] = {}
        for gene, name in enumerate(space.names):
            columns = np.flatnonzero(groups // 2 == gene)
            if len(columns):
                # What decides on the contrasts of a gene, so that its columns are those of another.
                known = (str(space.choices[name]), name in space.active, name in space.minor)
                kind = (_NUMBER.sub("#", name), *known)
                kinds.setdefault(kind, {})[tuple(_NUMBER.findall(name))] = columns
        found = [layers for layers in kinds.values() if len(layers) > 1]
        self._kinds = [np.stack(list(layers.values())) for layers in found]
        self._pairs: list[tuple[Columns, Columns]] = []
        for i, first in enumerate(found):
            for second in found[i + 1 :]:
                both = [layer for layer in first if layer in second]
                if len(both) > 1:
                    pair = [np.stack([kind[layer] for layer in both]) for kind in (first, second)]
                    self._pairs.append((pair[0], pair[1]))

    def sums(self, features: Floats) -> Floats:
        """Sums over each kind, shape `(n, s)`, of features `(n, f)`."""
        found = [features[:, columns].sum(axis=1) for columns in self._kinds]
        return np.hstack([np.zeros((len(features), 0)), *found])

    def products(self, features: Floats) -> Floats:
        """Sums over layers of products of two kinds, shape `(n, p)`, of features `(n, f)`."""
        found = [
            np.einsum("nla,nlb->nab", features[:, first], features[:, second])
            for first, second in self._pairs
        ]
        flat = [product.reshape(len(features), -1) for product in found]
        return np.hstack([np.zeros((len(features), 0)), *flat])
