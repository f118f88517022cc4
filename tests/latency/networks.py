"""Small networks that backends compile in tests."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from latency.chains import chain, whole_inputs
from search_spaces import Block, DecoderSpace, VisionTransformerSpace, Workload
from supernet.families import build_supernet
from supernet.parts import Network, Part, Port

VISION = VisionTransformerSpace(
    image_size=6,
    patch_size=3,
    channels=2,
    num_classes=3,
    head_dim=4,
    embed=(8,),
    depth=(1, 2),
    heads=(2,),
    ffn=(8,),
)
TEXT = DecoderSpace(
    vocabulary=11,
    context=16,
    head_dim=4,
    group=2,
    embed=(8,),
    depth=(1, 2),
    heads=(2, 4),
    ffn=(8,),
)
PREFILL, DECODE = Workload(sequence=8), Workload(sequence=1, past=7)

Case = tuple[Network, Mapping[str, Tensor]]


def whole(space: VisionTransformerSpace | DecoderSpace, workload: Workload) -> Case:
    """The largest subnet."""
    torch.manual_seed(0)
    network = build_supernet(space).extract(space.largest).network()
    return network, whole_inputs(network, workload)


def attention_chain(space: VisionTransformerSpace | DecoderSpace, workload: Workload) -> Case:
    """Two attention blocks, as in a latency table."""
    torch.manual_seed(0)
    block = next(block for block in space.all_blocks() if block.kind == "attention")
    assert isinstance(block, Block)
    return chain(space, block, 2, workload)


def linear(width: int, layers: int) -> Case:
    """Matrix products, `(1, width)` to the same."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).eval()
    network = Network(
        parts=(Part(name="linear", module=module, inputs=("x",), outputs=("y",)),),
        inputs=(Port(name="x", shape=(1, width)),),
        outputs=(Port(name="y", shape=(1, width)),),
    )
    return network, {"x": torch.ones(1, width)}


@cache
def cases() -> dict[str, Case]:
    """What tables and exports are made of."""
    return {
        "vit": whole(VISION, Workload()),
        "vit-chain": attention_chain(VISION, Workload(batch=2)),
        "prefill": whole(TEXT, PREFILL),
        "decode": whole(TEXT, DECODE),
        "decode-chain": attention_chain(TEXT, DECODE),
    }
