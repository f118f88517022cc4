"""Stem and head in few bits: Law 1 in the supernet and in the runtime, bytes on disk, latencies."""

from collections import Counter

import numpy as np
import pytest
import torch

from latency.chains import chain, whole_inputs
from search_spaces import space_from_json
from search_spaces.schemes import ENDS, FULL, SCHEMES
from supernet.sensitivity import sensitivities
from supernet.stored import StoredLayer
from tests.latency.test_graphs import random_supernet
from tests.latency.test_policy import FAMILIES, _bytes, assert_close, run

torch.set_num_threads(1)
pytestmark = pytest.mark.slow

CASES = {
    name: (space_from_json(space.to_json() | {"precision_ends": list(ENDS)}), load)
    for name, (space, load) in FAMILIES.items()
    if name != "decode"
}


@pytest.fixture(scope="module")
def supernets():
    torch.manual_seed(1)
    found = {name: random_supernet(space) for name, (space, _) in CASES.items()}
    found["vit"].calibrate([torch.randn(16, 1, 8, 8)])
    found["prefill"].calibrate([torch.randint(11, (8, 16))])
    return found


def ends(space, name, head=None):
    """The largest subnet in fp32 but for its ends."""
    chosen = {"precision.stem": name, "precision.head": head or name}
    return space.architecture({**space.with_scheme(space.largest, FULL), **chosen})


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_gives_what_the_simulation_gives(case, supernets, library, tmp_path):
    (space, load), model = CASES[case], supernets[case]
    full = space.with_scheme(space.largest, FULL)
    plain = model.extract(full).network()
    feeds = whole_inputs(plain, load)
    expected = plain.run(feeds)["logits"]
    _, usual = run(library.assemble(plain), feeds, tmp_path)
    usual = Counter(node.op_type for node in usual.graph.node)
    for name in space.choices["precision.stem"]:
        arch = ends(space, name)
        network = model.extract(arch).network()
        found, optimized = run(library.assemble(network), feeds, tmp_path)
        assert_close(found, network, feeds)
        with torch.no_grad():
            inside = model.outputs(arch, *feeds.values())[0]
        assert torch.equal(network.run(feeds)["logits"], inside)
        # What is only stored in few bits runs as before
        assert Counter(node.op_type for node in optimized.graph.node) == usual
        assert torch.equal(network.run(feeds)["logits"], expected) == (name == FULL)
        if name != FULL:
            stored = [one for one in network.parts[0].module.modules() if type(one) is StoredLayer]
            assert [one.scheme.name for one in stored] == [name]


def test_a_head_of_a_language_model_has_an_arithmetic_of_its_own(supernets, library, tmp_path):
    (space, load), model = CASES["prefill"], supernets["prefill"]
    for name, kernel in (("w8a8", "MatMulIntegerToFloat"), ("w4_nbits", "MatMulNBits")):
        network = model.extract(ends(space, FULL, name)).network()
        feeds = whole_inputs(network, load)
        found, optimized = run(library.assemble(network), feeds, tmp_path)
        assert_close(found, network, feeds)
        assert Counter(node.op_type for node in optimized.graph.node)[kernel] == 1
        blocks = [b for b in space.timed_blocks() if b.precision == (("head", name),)]
        assert {block.kind for block in blocks} == {"fixed"}
        network, feeds = chain(space, blocks[0], 0, load)
        _, optimized = run(library.assemble(network), feeds, tmp_path)
        assert Counter(node.op_type for node in optimized.graph.node)[kernel] == 1


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_those_of_the_file(case, supernets, library):
    space, model = CASES[case][0], supernets[case]
    for name in space.choices["precision.stem"]:
        arch = ends(space, name)
        found = _bytes(library.assemble(model.extract(arch).network()))
        assert found == space.cost(arch).size_bytes


@pytest.mark.parametrize("case", CASES)
def test_what_stem_and_head_lose_is_told(case, supernets):
    space, model = CASES[case][0], supernets[case]
    inputs = torch.randn(8, 1, 8, 8) if case == "vit" else torch.randint(11, (8, 16))
    labels = torch.randint(10, (8,)) if case == "vit" else torch.randint(11, (8, 16))
    found = sensitivities(model, space.largest, inputs, labels)
    for part in ENDS:
        losses = found[f"precision.{part}"]
        assert set(losses) == set(space.choices[f"precision.{part}"])
        assert losses[FULL] == 0
        assert losses["w4"] > losses["w8"] > 0


def test_what_has_an_arithmetic_is_not_only_stored():
    with pytest.raises(ValueError, match="scheme w8a8 is for products of matrices alone"):
        StoredLayer(torch.nn.Embedding(4, 4), SCHEMES["w8a8"])


def test_stored_weights_follow_the_layer():
    layer = torch.nn.Embedding(4, 40)
    stored, tokens = StoredLayer(layer, SCHEMES["w8"]), torch.arange(4)
    with torch.no_grad():
        before = stored(tokens)
        assert 0 < (before - layer(tokens)).abs().max() < 0.02
        layer.weight.mul_(2)
        np.testing.assert_allclose(stored(tokens), 2 * before, rtol=1e-5)
