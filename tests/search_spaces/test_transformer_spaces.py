"""The spaces of both network families: which layers stay, which blocks there are, files, errors."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import (
    Block,
    DecoderSpace,
    UserError,
    VisionTransformerSpace,
    Workload,
    space_from_json,
)
from search_spaces.transformer import fixed_facts

VISION = {
    "image_size": 8,
    "patch_size": 2,
    "channels": 1,
    "num_classes": 10,
    "head_dim": 4,
    "embed": (8, 16, 24),
    "depth": (1, 2, 4),
    "heads": (1, 2),
    "ffn": (8, 16),
}
TEXT = {
    "vocabulary": 32,
    "context": 16,
    "head_dim": 4,
    "group": 2,
    "embed": (8, 16),
    "depth": (2, 3),
    "heads": (2, 4, 6),
    "ffn": (8, 16),
}


def vision(**changes):
    return VisionTransformerSpace(**{**VISION, **changes})


def text(**changes):
    return DecoderSpace(**{**TEXT, **changes})


SPACES = {"vit": vision(), "decoder": text(), "ordered": vision(drop_order=(2, 0, 3, 1))}


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def architectures(space):
    """Random encodings of `space`."""
    genes = st.tuples(*(st.integers(0, n - 1) for n in space.cardinalities.tolist()))
    return genes.map(space.decode)


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_subnet_has_the_layers_and_widths_of_its_genes(name, data):
    space = SPACES[name]
    arch = data.draw(architectures(space))
    subnet = space.subnet(arch)
    assert subnet.embed == arch["embed"]
    indices = [layer.index for layer in subnet.layers]
    assert len(indices) == arch["depth"]
    assert indices == sorted(set(indices))
    dropped = space.drop_order[: space.max_depth - arch["depth"]]
    assert set(indices) == set(range(space.max_depth)) - set(dropped)
    for layer in subnet.layers:
        assert layer.heads == arch[f"heads.{layer.index}"]
        assert layer.kv_heads * space.group == layer.heads
        assert layer.ffn == arch[f"ffn.{layer.index}"]
    # Genes of the layers that stay, and no others.
    assert {n.partition(".")[2] for n in arch if "." in n} == {str(index) for index in indices}
    assert len(arch) == 2 + 2 * arch["depth"]


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_blocks_of_a_subnet_are_blocks_of_the_space(name, data):
    space = SPACES[name]
    arch = data.draw(architectures(space))
    subnet, blocks = space.subnet(arch), space.blocks(arch)
    assert [block.kind for block in blocks] == ["fixed"] + ["attention", "ffn"] * arch["depth"]
    assert blocks[0].widths == (("embed", subnet.embed),)
    for layer, attention, ffn in zip(subnet.layers, blocks[1::2], blocks[2::2], strict=True):
        assert attention.widths == (
            ("embed", subnet.embed),
            ("heads", layer.heads),
            ("kv_heads", layer.kv_heads),
        )
        assert ffn.widths == (("embed", subnet.embed), ("ffn", layer.ffn))
    assert set(blocks) <= set(space.all_blocks())


def test_all_blocks_are_those_of_all_architectures(space):
    found = space.all_blocks()
    assert len(set(found)) == len(found)
    small = vision(embed=(8, 16), depth=(1, 2), heads=(1, 2), ffn=(8, 16))
    assert set(small.all_blocks()) == {block for arch in small for block in small.blocks(arch)}
    assert len(small.all_blocks()) == 2 * (1 + 2 + 2)


def test_size_counts_only_layers_that_stay(space):
    heads, ffn = len(space.choices["heads.0"]), len(space.choices["ffn.0"])
    layers = [(heads * ffn) ** depth for depth in space.choices["depth"]]
    assert space.size == len(space.choices["embed"]) * sum(layers)


@pytest.mark.parametrize(
    ("layers", "order"),
    [(1, (0,)), (2, (1, 0)), (4, (3, 1, 2, 0)), (6, (5, 3, 1, 4, 2, 0)), (5, (3, 1, 4, 2, 0))],
)
def test_every_other_layer_is_dropped_first_the_deepest_first(layers, order):
    space = vision(depth=(1, layers) if layers > 1 else (1,))
    assert space.drop_order == order


@pytest.mark.parametrize(
    ("order", "kept"),
    [
        (None, {1: [0], 2: [0, 2], 3: [0, 1, 2], 4: [0, 1, 2, 3]}),
        ((0, 1, 2, 3), {1: [3], 2: [2, 3], 3: [1, 2, 3], 4: [0, 1, 2, 3]}),
        ((2, 0, 3, 1), {1: [1], 2: [1, 3], 3: [0, 1, 3], 4: [0, 1, 2, 3]}),
    ],
)
def test_drop_order_says_which_layers_stay(order, kept):
    space = vision(depth=(1, 2, 3, 4), drop_order=order)
    for depth, layers in kept.items():
        genes = {"embed": 8, "depth": depth}
        genes |= {f"{kind}.{i}": v for i in layers for kind, v in (("heads", 1), ("ffn", 8))}
        arch = space.architecture(genes)
        assert [layer.index for layer in space.subnet(arch).layers] == layers
        # One more layer's genes do not count; one missing is told.
        with pytest.raises(UserError, match="is missing; choose one of"):
            space.architecture({k: v for k, v in genes.items() if k != f"ffn.{layers[0]}"})


def test_layers_of_a_shallow_subnet_are_layers_of_every_deeper_one(space):
    rng = np.random.default_rng(0)
    kept = {}
    for _ in range(200):
        arch = space.sample(rng)
        layers = frozenset(layer.index for layer in space.subnet(arch).layers)
        assert kept.setdefault(arch["depth"], layers) == layers
    depths = sorted(kept)
    assert depths == list(space.choices["depth"])
    for shallow, deep in pairwise(depths):
        assert kept[shallow] < kept[deep]


def test_subnets_are_remembered_without_end_and_without_mistake(monkeypatch):
    monkeypatch.setattr("search_spaces.transformer.REMEMBERED_SUBNETS", 3)
    space = vision()
    rng = np.random.default_rng(0)
    sample = [space.sample(rng) for _ in range(20)]
    fresh = vision()
    for arch in sample * 2:
        assert space.subnet(arch) == fresh._resolve(arch)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_uniform_goes_from_smallest_to_largest(space, count):
    found = space.uniform(count)
    assert found[0] == space.smallest
    assert found[-1] == space.largest
    assert len(found) == len(set(found)) <= count
    costs = [space.cost(arch).parameters for arch in found]
    assert costs == sorted(costs)
    assert all(arch in space for arch in found)


def test_uniform_takes_each_gene_at_the_same_part_of_its_range():
    space = vision(embed=(8, 16, 24), depth=(4,), heads=(1, 2, 3), ffn=(8, 16, 24))
    assert set(space.uniform(3)[1].values()) == {16, 4, 2}


def test_json_round_trip(space):
    text = json.dumps(space.to_json())
    again = space_from_json(json.loads(text))
    assert type(again) is type(space)
    assert again.to_json() == space.to_json()
    assert again.digest == space.digest
    assert again.names == space.names
    assert again.choices == space.choices
    for arch in space.uniform(5):
        assert again.blocks(arch) == space.blocks(arch)
        assert again.cost(arch) == space.cost(arch)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 16},
        {"patch_size": 4},
        {"channels": 3},
        {"num_classes": 11},
        {"pooling": "mean"},
        {"head_dim": 8},
        {"embed": (8, 16)},
        {"depth": (1, 4)},
        {"heads": (1, 3)},
        {"ffn": (8, 17)},
        {"drop_order": (0, 1, 2, 3)},
        {"norm_epsilon": 1e-12},
    ],
)
def test_digest_tells_vision_spaces_apart(change):
    assert vision(**change).digest != vision().digest
    assert len(vision(**change).digest) == 16


@pytest.mark.parametrize("change", [{"group": 1}, {"vocabulary": 33}, {"context": 17}])
def test_digest_tells_text_spaces_apart(change):
    assert text(**change).digest != text().digest


def test_a_space_says_the_same_in_another_way():
    assert vision(drop_order=(3, 1, 2, 0)).digest == vision(drop_order=None).digest
    assert vision(embed=[8, 16, 24]).digest == vision().digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed": ()}, "space.embed is empty; give at least one choice"),
        ({"depth": (0, 1)}, "space.depth 0 is not a positive integer"),
        ({"heads": (1.5,)}, "space.heads 1.5 is not a positive integer"),
        ({"heads": (True, 2)}, "space.heads True is not a positive integer"),
        ({"ffn": ("8",)}, "space.ffn '8' is not a positive integer"),
        ({"ffn": (16, 8)}, r"space.ffn \[16, 8\] must ascend without repeats"),
        ({"embed": (8, 8)}, r"space.embed \[8, 8\] must ascend without repeats"),
        ({"head_dim": 0}, "space.head_dim 0 is below 1; give a positive integer"),
        ({"drop_order": (0, 1, 2)}, r"space.drop_order \[0, 1, 2\] must name each of the 4 layers"),
        ({"drop_order": (0, 1, 2, 2)}, "must name each of the 4 layers 0 to 3 once"),
        ({"drop_order": (0, 1, 2, 4)}, "must name each of the 4 layers 0 to 3 once"),
        ({"image_size": 0}, "image_size 0 is below 1; give a positive integer"),
        ({"num_classes": 0}, "num_classes 0 is below 1"),
        (
            {"patch_size": 3},
            "space.patch_size 3 does not divide the image size 8; "
            "edit space.patch_size or task.image_size",
        ),
        ({"pooling": "max"}, r"space.pooling 'max' is not one of \('cls', 'mean'\)"),
    ],
)
def test_vision_spaces_that_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        vision(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 5}, "space.head_dim 5 is odd; rotary positions need an even one"),
        ({"vocabulary": 0}, "task.vocabulary 0 is below 1; give a positive integer"),
        ({"context": 0}, "task.context 0 is below 1; give a positive integer"),
        ({"group": 0}, "space.group 0 is below 1; give a positive integer"),
        (
            {"heads": (2, 3)},
            "space.heads 3 does not divide into groups of 2; edit space.heads or space.group",
        ),
    ],
)
def test_text_spaces_that_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        text(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "cnn"}, r"space.family 'cnn' is not one of \('vit', 'decoder'\)"),
        ({"family": None}, "space.family None is not one of"),
        ({"width": 3}, "space of family 'vit': .*unexpected keyword argument 'width'"),
        ({"embed": [16, 8]}, "must ascend without repeats"),
    ],
)
def test_descriptions_that_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        space_from_json({**vision().to_json(), **change})
    with pytest.raises(UserError, match=r"space of family 'decoder': .*missing"):
        space_from_json({"family": "decoder"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "workload batch 0 is below 1; give at least 1"),
        ({"sequence": 0}, "workload sequence 0 is below 1; give at least 1"),
        ({"past": -1}, "workload past -1 is below 0; give at least 0"),
    ],
)
def test_workloads_that_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Workload(**fields)


def test_workloads_that_do_not_fit_the_family():
    for workload in (Workload(sequence=4), Workload(past=1)):
        with pytest.raises(UserError, match="is for a language model; images have batch only"):
            vision().check_workload(workload)
    with pytest.raises(UserError, match="needs a sequence length; give sequence"):
        text().check_workload(Workload())
    with pytest.raises(UserError, match=r"needs 17 tokens; task\.context is 16"):
        text().check_workload(Workload(sequence=1, past=16))
    text().check_workload(Workload(sequence=1, past=15))
    text().check_workload(text().default_workload)
    vision().check_workload(vision().default_workload)


def test_workloads_and_blocks_as_text():
    assert str(Workload(batch=2)) == "batch=2,past=0"
    assert str(Workload(sequence=1, past=7)) == "batch=1,sequence=1,past=7"
    assert Workload(sequence=1, past=7).to_json() == {"batch": 1, "sequence": 1, "past": 7}
    block = Block(kind="ffn", widths=(("embed", 8), ("ffn", 16)))
    assert str(block) == "ffn(embed=8, ffn=16)"
    assert block.width("ffn") == 16


def test_constants_are_written_only_where_they_are_others():
    """So that no hash of a space from before there were some changes."""
    for build, name, usual, other in (
        (vision, "norm_epsilon", 1e-5, 1e-12),
        (text, "norm_epsilon", 1e-6, 1e-5),
        (text, "rotary_base", 10000.0, 5e5),
    ):
        assert name not in build().to_json()
        assert build(**{name: usual}).digest == build().digest
        changed = build(**{name: other})
        assert changed.to_json()[name] == other
        assert changed.digest != build().digest
        assert space_from_json(changed.to_json()).digest == changed.digest
        # A table serves both: what a block costs does not depend on it.
        assert fixed_facts(changed.to_json()) == fixed_facts(build().to_json())


@pytest.mark.parametrize("value", [0.0, -1e-6, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["norm_epsilon", "rotary_base"])
def test_constants_are_positive_and_finite(name, value):
    with pytest.raises(UserError, match=f"space.{name} .* is not above 0 and finite"):
        text(**{name: value})
