"""Elastic decoder language models (Llama, arXiv:2302.13971) as a search space, with their cost."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.blocks import Block, Cost, Workload
from search_spaces.errors import UserError
from search_spaces.schemes import SCHEMES
from search_spaces.transformer import TransformerSpace, check_positive

BYTES_PER_CACHED = 4
ROTARY_BASE = 10000.0
"""Base of rotary positions (arXiv:2104.09864) unless a space says otherwise."""


class DecoderSpace(TransformerSpace):
    """Subnets of a decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

    Args:
        vocabulary: Number of tokens.
        context: Longest sequence, cached tokens included.
        head_dim: Features of one attention head; even, for rotary positions.
        group: Query heads that share one key/value head (arXiv:2305.13245).
        embed: Embedding widths.
        depth: Numbers of layers.
        heads: Query heads of a layer; multiples of `group`.
        ffn: SwiGLU widths of a layer (arXiv:2002.05202).
        drop_order: See `TransformerSpace`.
        precision: See `TransformerSpace`.
        precision_ends: See `TransformerSpace`.
        norm_epsilon: Of RMSNorm; None is 1e-6.
        rotary_base: Base of the wavelengths of rotary positions (arXiv:2104.09864).
    """

    family = "decoder"
    default_norm_epsilon = 1e-6
    head_schemes = tuple(SCHEMES)

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        head_dim: int,
        embed: Sequence[int],
        depth: Sequence[int],
        heads: Sequence[int],
        ffn: Sequence[int],
        group: int = 1,
        drop_order: Sequence[int] | None = None,
        precision: Sequence[str] = (),
        precision_ends: Sequence[str] = (),
        norm_epsilon: float | None = None,
        rotary_base: float = ROTARY_BASE,
    ) -> None:
        for name, value in (("vocabulary", vocabulary), ("context", context)):
            if value < 1:
                raise UserError(f"task.{name} {value} is below 1; give a positive integer")
        if head_dim % 2:
            raise UserError(f"space.head_dim {head_dim} is odd; rotary positions need an even one")
        check_positive("rotary_base", rotary_base)
        self.rotary_base = rotary_base
        self.vocabulary = vocabulary
        self.context = context
        super().__init__(
            embed=embed,
            depth=depth,
            heads=heads,
            ffn=ffn,
            head_dim=head_dim,
            group=group,
            drop_order=drop_order,
            precision=precision,
            precision_ends=precision_ends,
            norm_epsilon=norm_epsilon,
        )

    @property
    def default_workload(self) -> Workload:
        """One sequence that fills the context."""
        return Workload(sequence=self.context)

    def check_workload(self, workload: Workload) -> None:
        """A language model needs a sequence length, within the context.

        Raises:
            UserError: There is no sequence length, or past and sequence exceed the context.
        """
        if workload.sequence is None:
            raise UserError(
                f"workload {workload} needs a sequence length; give sequence: 1 or more"
            )
        if workload.past + workload.sequence > self.context:
            raise UserError(
                f"workload {workload} needs {workload.past + workload.sequence} tokens; "
                f"task.context is {self.context}"
            )

    def block_cost(self, block: Block, workload: Workload) -> Cost:
        """Cost of one block; MACs count every matrix product, attention over all keys."""
        self.check_workload(workload)
        assert workload.sequence is not None
        embed, new = block.width("embed"), workload.sequence
        keys, cached = workload.past + new, 0
        if block.kind == "fixed":
            macs = new * embed * self.vocabulary
            parameters = 2 * self.vocabulary * embed + embed
        elif block.kind == "attention":
            query = block.width("heads") * self.head_dim
            key_value = 2 * block.width("kv_heads") * self.head_dim
            macs = new * embed * (2 * query + key_value) + 2 * new * keys * query
            parameters = embed + embed * (2 * query + key_value)
            cached = workload.batch * keys * key_value * BYTES_PER_CACHED
        else:
            ffn = block.width("ffn")
            macs = 3 * new * embed * ffn
            parameters = embed + 3 * embed * ffn
        return Cost(
            macs=workload.batch * macs,
            parameters=parameters,
            size_bytes=self.size_bytes(block, parameters),
            kv_cache_bytes=cached,
        )

    def linears(self, block: Block) -> dict[str, tuple[tuple[int, int], ...]]:
        """See `TransformerSpace`; the gate of the SwiGLU comes before its values."""
        embed = block.width("embed")
        if block.kind == "attention":
            query = block.width("heads") * self.head_dim
            key_value = 2 * block.width("kv_heads") * self.head_dim
            return {"qkv": ((query + key_value, embed),), "attention_out": ((embed, query),)}
        if block.kind == "ffn":
            ffn = block.width("ffn")
            return {"ffn_in": ((ffn, embed), (ffn, embed)), "ffn_out": ((embed, ffn),)}
        return {"stem": ((self.vocabulary, embed),), "head": ((self.vocabulary, embed),)}

    def to_json(self) -> dict[str, object]:
        """Everything that `space_from_json` needs."""
        return super().to_json() | {
            "vocabulary": self.vocabulary,
            "context": self.context,
            "group": self.group,
            **({"rotary_base": self.rotary_base} if self.rotary_base != ROTARY_BASE else {}),
        }
