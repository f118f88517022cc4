"""Where blocks are left out, one architecture has several encodings: a search looks at one."""

import numpy as np

from nas.search.enumeration import enumerate_genes
from nas.search.inner_search import evolve
from predictors.policies import slow_blocks
from tests.search_spaces.policy_spaces import FEW, policy_space


def left_out(**changes):
    """A space without 8-bit products."""
    space = policy_space("vit", FEW, **changes)
    return space.restricted(slow_blocks(space, [lambda block: 1.0]))


def test_every_architecture_is_listed_once():
    space = left_out(embed=(8, 16), depth=(1,), heads=(2,), ffn=(8, 16))
    found = [space.decode(genes) for genes in enumerate_genes(space)]
    assert len(set(found)) == len(found) == 2 * 2 * 2**4  # w8 or fp32 in each of four parts
    assert set(found) == set(space)


def test_the_inner_search_meets_every_architecture_once():
    space = left_out()
    rng = np.random.default_rng(0)
    start = space.canonical_rows(rng.integers(0, space.cardinalities, (8, space.dimensions)))

    def score(genes):
        assert all(space.decode(row) in space for row in genes)
        return genes[:, :3].astype(float)

    rows, _ = evolve(space, score, start, rng, generations=4, children=50)
    assert len({space.decode(genes) for genes in rows}) == len(rows) > 50
