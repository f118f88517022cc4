"""Law 3: analytic MACs, parameters and bytes are those counted on the extracted module."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from latency.chains import whole_inputs
from search_spaces import DecoderSpace, VisionTransformerSpace, Workload
from supernet.families import build_supernet

VISION = {
    "image_size": 8,
    "channels": 3,
    "num_classes": 7,
    "head_dim": 5,
    "embed": (6, 11),
    "depth": (1, 3),
    "heads": (1, 3),
    "ffn": (4, 13),
}
TEXT = {
    "vocabulary": 37,
    "context": 16,
    "head_dim": 6,
    "embed": (6, 11),
    "depth": (1, 3),
    "heads": (2, 4, 6),
    "ffn": (4, 13),
}
SPACES = {
    "cls": VisionTransformerSpace(**VISION, patch_size=2, pooling="cls"),
    "mean": VisionTransformerSpace(**VISION, patch_size=4, pooling="mean"),
    "full heads": DecoderSpace(**TEXT, group=1),
    "grouped heads": DecoderSpace(**TEXT, group=2),
}
IMAGES = (Workload(), Workload(batch=2), Workload(batch=5))
TOKENS = (
    Workload(sequence=16),
    Workload(batch=2, sequence=5),
    Workload(sequence=1, past=9),
    Workload(batch=3, sequence=1, past=15),
    Workload(batch=2, sequence=4, past=3),
)
CASES = [
    (name, workload)
    for name, space in SPACES.items()
    for workload in (IMAGES if space.family == "vit" else TOKENS)
]


def some(space):
    rng = np.random.default_rng(0)
    return [space.smallest, space.largest, *(space.sample(rng) for _ in range(4))]


def run(space, arch, workload):
    """Outputs of the extracted module, and the MACs that PyTorch counts."""
    network = build_supernet(space).extract(arch).network()
    feeds = whole_inputs(network, workload)
    counter = FlopCounterMode(display=False)
    # The fused attention of the CPU is not counted; its plain form is.
    with sdpa_kernel(SDPBackend.MATH), counter:
        values = network.run(feeds)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return [values[port.name] for port in network.outputs], flops // 2


@pytest.mark.parametrize(("name", "workload"), CASES, ids=lambda case: str(case))
def test_macs_and_cache_are_those_counted(name, workload):
    space = SPACES[name]
    for arch in some(space):
        cost = space.cost(arch, workload)
        (_, *present), macs = run(space, arch, workload)
        assert cost.macs == macs
        assert cost.kv_cache_bytes == sum(tensor.nbytes for tensor in present)
        if space.family == "decoder":
            assert len(present) == 2 * arch["depth"]


@pytest.mark.parametrize("name", SPACES)
def test_parameters_and_bytes_are_those_counted(name):
    space = SPACES[name]
    supernet = build_supernet(space)
    for arch in some(space):
        cost = space.cost(arch)
        parameters = list(supernet.extract(arch).parameters())
        assert cost.parameters == sum(parameter.numel() for parameter in parameters)
        assert cost.size_bytes == sum(parameter.nbytes for parameter in parameters)


@pytest.mark.parametrize("name", SPACES)
def test_the_largest_subnet_has_all_weights_of_the_supernet(name):
    space = SPACES[name]
    weights = sum(parameter.numel() for parameter in build_supernet(space).parameters())
    assert space.cost(space.largest).parameters == weights


@pytest.mark.parametrize(("name", "workload"), CASES, ids=lambda case: str(case))
def test_each_blocks_cost_is_that_of_its_part(name, workload):
    """A part counts for itself, and so do not only the sums agree."""
    space = SPACES[name]
    arch = some(space)[2]
    network = build_supernet(space).extract(arch).network()
    values = network.run(whole_inputs(network, workload))
    counted = {}
    for part in network.parts:
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            part.module(*(values[port] for port in part.inputs))
        counted[part.name] = (
            counter.get_total_flops() // 2,
            sum(parameter.numel() for parameter in part.module.parameters()),
        )
    stem, head = counted.pop("stem"), counted.pop("head")
    fixed, *blocks = space.blocks(arch)
    costs = [space.block_cost(block, workload) for block in (fixed, *blocks)]
    found = [(cost.macs, cost.parameters) for cost in costs]
    assert found[0] == (stem[0] + head[0], stem[1] + head[1])
    assert found[1:] == list(counted.values())


@pytest.mark.parametrize(("name", "workload"), CASES, ids=lambda case: str(case))
def test_equal_architectures_cost_the_same(name, workload):
    space = SPACES[name]
    arch = some(space)[2]
    again = space.decode(space.encode(arch))
    assert space.cost(again, workload) == space.cost(arch, workload)


def test_every_width_costs_something():
    """Each gene that counts makes a subnet larger in parameters and MACs."""
    for space in SPACES.values():
        smallest = space.cost(space.smallest)
        for name in space.smallest:
            larger = {**space.smallest, name: space.choices[name][1]}
            if name == "depth":
                larger = {**{n: values[0] for n, values in space.choices.items()}, **larger}
            cost = space.cost(space.architecture(larger))
            assert cost.parameters > smallest.parameters, name
            assert cost.macs > smallest.macs, name
