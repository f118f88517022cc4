import numpy as np

from nas.search.boshnas import scalarised
from nas.search.surrogate import Surrogate
from search_spaces import SearchSpace

SPACE = SearchSpace({f"g{i}": tuple(range(4)) for i in range(10)})
WEIGHTS = np.random.default_rng(1).random((10, 2))


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, SPACE.cardinalities, size=(count, 10))


def values(genes):
    return genes @ WEIGHTS * [0.01, 100.0] + [5.0, -3.0]


def fitted(seed=0):
    surrogate = Surrogate(SPACE, 2, seed)
    surrogate.fit(rows(150), values(rows(150)))
    return surrogate


def test_it_predicts_objectives_of_any_unit():
    surrogate, unseen = fitted(), rows(100, seed=1)
    mean, noise, doubt = surrogate.predict(unseen)
    found = surrogate.restored(mean)
    for column in range(2):
        assert np.corrcoef(found[:, column], values(unseen)[:, column])[0, 1] > 0.9
    assert mean.shape == noise.shape == doubt.shape == (100, 2)
    assert (noise > 0).all()
    assert (doubt > 0).all()


def test_noise_is_larger_where_the_values_are_noisier():
    surrogate, genes = Surrogate(SPACE, 1, 0), rows(400)
    rng = np.random.default_rng(2)
    wild = genes[:, 0] >= 2
    surrogate.fit(genes, np.where(wild, rng.normal(0, 3, 400), rng.normal(0, 0.1, 400))[:, None])
    for _ in range(8):
        surrogate.fit(
            genes, np.where(wild, rng.normal(0, 3, 400), rng.normal(0, 0.1, 400))[:, None]
        )
    noise = surrogate.predict(genes)[1][:, 0]
    assert noise[wild].mean() > 2 * noise[~wild].mean()


def test_gradient_steps_lead_to_better_architectures():
    surrogate, start = fitted(), rows(40, seed=3)
    ideal = surrogate.scaled(values(rows(150)).min(axis=0), slice(None))
    for weight in ([1.0, 0.0], [0.5, 0.5]):
        found = surrogate.descend(start, np.tile(weight, (40, 1)), ideal)
        assert found.shape == (40, 10)
        assert ((found >= 0) & (found < 4)).all()
        before, after = (
            scalarised(surrogate.scaled(values(genes), slice(None)) - ideal, np.array(weight))
            for genes in (start, found)
        )
        assert after.mean() < before.mean() - 0.5


def test_the_seed_decides_everything():
    same = [fitted(seed).predict(rows(5))[0].tolist() for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]
