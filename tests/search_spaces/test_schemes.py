"""Precision policies in a space: genes, blocks, bytes, and what a space without them still is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Block, UserError, space_from_json
from search_spaces.schemes import FULL, PARTS, SCHEMES
from tests.search_spaces.policy_spaces import ALL, FEW, policy_space

SPACES = {"vit": policy_space("vit", FEW), "decoder": policy_space("decoder", ALL)}


def plain(space):
    """The same space without policies."""
    return space_from_json({k: v for k, v in space.to_json().items() if k != "precision"})


def architectures(space):
    genes = st.tuples(*(st.integers(0, n - 1) for n in space.cardinalities.tolist()))
    return genes.map(space.decode)


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_genes_of_layers_that_stay_count_and_come_back(name, data):
    space = SPACES[name]
    arch = data.draw(architectures(space))
    assert space.decode(space.encode(arch)) == arch
    kept = [layer.index for layer in space.subnet(arch).layers]
    policies = {gene for gene in arch if gene.startswith("precision.")}
    assert policies == {f"precision.{part}.{index}" for part in PARTS for index in kept}
    assert policies == {gene for gene in space.scheme_genes if gene in arch}
    assert space.minor == set(space.scheme_genes)
    assert not plain(space).scheme_genes
    again = space_from_json(space.to_json())
    assert again.digest == space.digest
    assert again.architecture(dict(arch)) == arch


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_blocks_have_the_schemes_of_the_genes(name, data):
    space = SPACES[name]
    arch = data.draw(architectures(space))
    _, *blocks = space.blocks(arch)
    for place, layer in enumerate(space.subnet(arch).layers):
        chosen = {part: arch[f"precision.{part}.{layer.index}"] for part in PARTS}
        pair = blocks[2 * place : 2 * place + 2]
        found = {part: scheme for block in pair for part, scheme in block.precision}
        assert found == {part: scheme for part, scheme in chosen.items() if scheme != FULL}
    assert set(space.blocks(arch)) <= set(space.all_blocks())
    assert {block.timed for block in space.blocks(arch)} <= set(space.timed_blocks())
    assert space.schemes(arch) == {v for k, v in arch.items() if k[:4] == "prec"} - {FULL}


def test_all_blocks_are_those_of_all_architectures():
    space = policy_space("vit", FEW, embed=(8,), depth=(1,), heads=(1, 2), ffn=(8,))
    found = space.all_blocks()
    assert len(set(found)) == len(found)
    assert set(found) == {block for arch in space for block in space.blocks(arch)}
    # What has no policy comes first, as in a space without policies
    assert found[: len(plain(space).all_blocks())] == plain(space).all_blocks()


def test_only_arithmetic_has_a_latency_of_its_own():
    block = Block(
        kind="ffn",
        widths=(("embed", 8), ("ffn", 16)),
        precision=(("ffn_in", "w8"), ("ffn_out", "w8a8")),
    )
    assert block.timed.precision == (("ffn_out", "w8a8"),)
    assert block.timed.timed == block.timed
    assert Block.of_genes(block.kind, block.genes) == block
    assert str(block) == ("ffn(embed=8, ffn=16, precision.ffn_in=w8, precision.ffn_out=w8a8)")
    space = SPACES["vit"]
    assert len(space.timed_blocks()) == 3 + (3 * 2 + 3 * 2) * 2**2


@pytest.mark.parametrize("name", SPACES)
def test_without_a_choice_nothing_is_another(name):
    space = plain(SPACES[name])
    for precision in ((), ("fp32",)):
        same = policy_space(name, precision)
        assert "precision" not in same.to_json()
        assert same.digest == space.digest
        assert same.names == space.names
        assert same.all_blocks() == same.timed_blocks() == space.all_blocks()
        assert all(block.timed is block for block in same.all_blocks())


@pytest.mark.parametrize("name", SPACES)
def test_bytes_are_those_of_the_schemes(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    for _ in range(20):
        arch = space.sample(rng)
        base = {gene: value for gene, value in arch.items() if not gene.startswith("precision.")}
        full = plain(space).cost(plain(space).architecture(base))
        assert space.cost(space.with_scheme(arch, FULL)) == full
        cost = space.cost(arch)
        assert (cost.macs, cost.parameters) == (full.macs, full.parameters)
        expected = full.size_bytes
        for block in space.blocks(arch):
            for part, scheme in block.precision:
                for shape in space.linears(block)[part]:
                    expected += SCHEMES[scheme].weight_bytes(*shape) - 4 * shape[0] * shape[1]
        assert cost.size_bytes == expected


def test_bytes_of_a_layer():
    found = {name: scheme.weight_bytes(10, 40) for name, scheme in SCHEMES.items()}
    assert found == {
        "fp32": 1600,
        "fp16": 800,
        "bf16": 800,
        "w8": 400 + 40,
        "w8a8": 400 + 40 + 5,
        "w8a8_dynamic": 400 + 40,
        "w4": 10 * 2 * 16 + 10 * 2 * 4,
        "w4_nbits": 10 * 2 * 16 + 10 * 2 * 4,
    }


def test_choices_go_from_coarse_to_fine():
    space = policy_space("vit", ("fp32", "w8a8", "w4"))
    assert space.choices["precision.qkv.0"] == ("w4", "w8a8", "fp32")
    assert not space.schemes(space.largest)
    assert space.schemes(space.smallest) == {"w4"}
    assert space.schemes(space.with_scheme(space.largest, "w8a8")) == {"w8a8"}
    with pytest.raises(UserError, match=r"scheme 'w8' is not one of space\.precision"):
        space.with_scheme(space.largest, "w8")


def test_blocks_that_are_left_out_become_others():
    space = SPACES["vit"]
    left_out = {
        block: Block(kind=block.kind, widths=block.widths, precision=(("ffn_out", "w8"),))
        for block in space.all_blocks()
        if dict(block.precision).get("ffn_out") == "w8a8"
    }
    restricted = space.restricted(left_out)
    rng = np.random.default_rng(0)
    for _ in range(50):
        genes = rng.integers(0, space.cardinalities)
        arch, whole = restricted.decode(genes), space.decode(genes)
        assert restricted.decode_all([genes]) == [arch]
        assert not set(restricted.blocks(arch)) & set(left_out)
        assert restricted.decode(restricted.encode(arch)) == arch
        expected = [left_out.get(block, block) for block in space.blocks(whole)]
        assert list(restricted.blocks(arch)) == expected
        assert arch in restricted
        # What another device evaluated is known here if it may be picked here
        assert (whole in restricted) == (whole == arch)
    assert "w8a8" not in {restricted.smallest[f"precision.ffn_out.{i}"] for i in (0,)}
    assert space.smallest["precision.ffn_out.0"] == "w8a8"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("fp32", "int8"),
            r"space\.precision 'int8' is not one of w4_nbits, w4, w8a8_dynamic, w8a8, w8",
        ),
        (("w8", "w8a8"), "lacks fp32, which all is compared with; add it"),
        (("fp32", "w8", "w8"), "names a scheme twice; name each once"),
    ],
)
def test_choices_that_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        policy_space("vit", names)


@pytest.mark.parametrize("name", SPACES)
def test_random_policies_keep_the_widths(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    drawn = []
    for _ in range(100):
        widths = plain(space).sample(rng)
        found = space.with_random_policy(widths, rng)
        assert found in space
        assert {k: v for k, v in found.items() if k in widths} == dict(widths)
        assert plain(space).with_random_policy(widths, rng) == widths
        drawn.append({v for k, v in found.items() if k.startswith("precision.")})
    alone = [schemes for schemes in drawn if len(schemes) == 1]
    assert 40 < len(alone) < 70
    assert set().union(*alone) == set(space.precision)
