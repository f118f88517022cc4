"""What a latency table measures: chains of equal blocks, and the network without blocks.

A block is timed among its like, so that fusion is as it is in a real network; what a chain costs
beside its blocks is told apart (`latency.overhead`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from search_spaces.blocks import Block, Workload
from search_spaces.decoder import DecoderSpace
from search_spaces.schemes import ENDS
from search_spaces.transformer import TransformerSpace
from search_spaces.vit import VisionTransformerSpace
from supernet import decoder, vit
from supernet.calibration import observed_ranges
from supernet.parts import Network, Part, Port, example_inputs
from supernet.quantization import quantize_block, within


def sizes(workload: Workload) -> dict[str, int]:
    """The free dimensions of a network's ports under a workload."""
    new = workload.sequence or 1
    return {
        "batch": workload.batch,
        "sequence": new,
        "past": workload.past,
        "total": workload.past + new,
    }


def whole_inputs(network: Network, workload: Workload) -> dict[str, Tensor]:
    """Example inputs of a whole network."""
    return example_inputs(network.inputs, sizes(workload))


def chain(
    space: TransformerSpace, block: Block, copies: int, workload: Workload
) -> tuple[Network, dict[str, Tensor]]:
    """A chain of `copies` equal blocks with random weights, and example inputs.

    A `fixed` block gives the whole network without layers, whatever `copies` says.

    Raises:
        TypeError: The space is of no known family.
    """
    for family, build in CHAINS.items():
        if isinstance(space, family):
            network, feeds = build(space, block, copies, workload)
            if block.precision:
                _quantize(network, block, feeds)
            return network, feeds
    raise TypeError(f"no chains for {type(space).__name__}")


def _quantize(network: Network, block: Block, feeds: Mapping[str, Tensor]) -> None:
    """Give every block of a chain its schemes; static ranges are those of the example inputs."""
    chained = nn.ModuleList(part.module for part in network.parts)
    with observed_ranges(chained) as ranges:
        network.run(feeds)
    for place, part in enumerate(network.parts):
        kind = "fixed" if part.name in ENDS else part.name.partition(".")[0]
        policy = tuple(pair for pair in block.precision if kind != "fixed" or pair[0] == part.name)
        if kind == block.kind:
            quantize_block(part.module, policy, within(ranges, str(place)))


def _vit_chain(
    space: VisionTransformerSpace, block: Block, copies: int, workload: Workload
) -> tuple[Network, dict[str, Tensor]]:
    embed = block.width("embed")
    if block.kind == "fixed":
        network = vit.VisionTransformer(space, embed=embed, layers=()).eval().network()
        return network, whole_inputs(network, workload)
    names = [f"x.{index}" for index in range(copies + 1)]
    parts = []
    for index in range(copies):
        module: nn.Module
        if block.kind == "attention":
            heads = block.width("heads")
            module = vit.AttentionBlock(
                embed=embed,
                heads=heads,
                head_dim=space.head_dim,
                norm_epsilon=space.norm_epsilon,
            )
        else:
            module = vit.FfnBlock(
                embed=embed, ffn=block.width("ffn"), norm_epsilon=space.norm_epsilon
            )
        parts.append(
            Part(
                name=f"{block.kind}.{index}",
                module=module.eval(),
                inputs=(names[index],),
                outputs=(names[index + 1],),
            )
        )
    shape = ("batch", space.tokens, embed)
    network = Network(
        parts=tuple(parts),
        inputs=(Port(name=names[0], shape=shape),),
        outputs=(Port(name=names[-1], shape=shape),),
    )
    return network, whole_inputs(network, workload)


def _decoder_chain(
    space: DecoderSpace, block: Block, copies: int, workload: Workload
) -> tuple[Network, dict[str, Tensor]]:
    embed = block.width("embed")
    if block.kind == "fixed":
        network = decoder.Decoder(space, embed=embed, layers=()).eval().network()
        return network, whole_inputs(network, workload)
    names = [f"x.{index}" for index in range(copies + 1)]
    shape = ("batch", "sequence", embed)
    if block.kind == "ffn":
        parts = tuple(
            Part(
                name=f"ffn.{index}",
                module=decoder.FfnBlock(
                    embed=embed, ffn=block.width("ffn"), norm_epsilon=space.norm_epsilon
                ).eval(),
                inputs=(names[index],),
                outputs=(names[index + 1],),
            )
            for index in range(copies)
        )
        network = Network(
            parts=parts,
            inputs=(Port(name=names[0], shape=shape),),
            outputs=(Port(name=names[-1], shape=shape),),
        )
        return network, whole_inputs(network, workload)
    kv_heads = block.width("kv_heads")
    positions = Part(
        name="positions",
        module=_Positions(space).eval(),
        inputs=(names[0], "past.0.key"),
        outputs=decoder.POSITIONS,
    )
    blocks = tuple(
        Part(
            name=f"attention.{index}",
            module=decoder.AttentionBlock(
                embed=embed,
                kv_heads=kv_heads,
                group=space.group,
                head_dim=space.head_dim,
                norm_epsilon=space.norm_epsilon,
            ).eval(),
            inputs=(names[index], *decoder.POSITIONS, *decoder.cached("past", index)),
            outputs=(names[index + 1], *decoder.cached("present", index)),
        )
        for index in range(copies)
    )

    def cache(name: str, length: str) -> tuple[Port, ...]:
        return tuple(
            Port(name=port, shape=("batch", kv_heads, length, space.head_dim))
            for index in range(copies)
            for port in decoder.cached(name, index)
        )

    network = Network(
        parts=(positions, *blocks),
        inputs=(Port(name=names[0], shape=shape), *cache("past", "past")),
        outputs=(Port(name=names[-1], shape=shape), *cache("present", "total")),
    )
    return network, whole_inputs(network, workload)


class _Positions(nn.Module):
    """The positions of a chain without a stem: part of its overhead."""

    def __init__(self, space: DecoderSpace) -> None:
        super().__init__()
        self.rotary = decoder.Rotary(
            context=space.context, head_dim=space.head_dim, base=space.rotary_base
        )

    def forward(self, x: Tensor, past: Tensor) -> decoder.Positions:
        positions: decoder.Positions = self.rotary(x.shape[:2], past.shape[2])
        return positions


CHAINS: dict[type[TransformerSpace], Callable[..., tuple[Network, dict[str, Tensor]]]] = {
    VisionTransformerSpace: _vit_chain,
    DecoderSpace: _decoder_chain,
}
