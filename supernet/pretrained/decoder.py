"""Decoders of Hugging Face's transformers (`model_type: llama` and `mistral`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from search_spaces.decoder import ROTARY_BASE, DecoderSpace
from search_spaces.errors import UserError
from supernet.pretrained.folder import PretrainedFolder
from supernet.pretrained.keys import Keys
from supernet.pretrained.named import NamedTensors
from supernet.pretrained.widths import Widths, check_equal

IGNORED = r".*\.rotary_emb\.inv_freq"
"""Buffers that early versions of the library wrote, which follow from the settings."""
PLAIN_ROTARY: dict[str, tuple[object, ...]] = {
    "rope_type": (None, "default"),
    "type": (None, "default"),
    "partial_rotary_factor": (None, 1, 1.0),
}
"""What rotary positions may say of themselves beside `rope_theta`."""


@dataclass(frozen=True, kw_only=True)
class DecoderCheckpoint:
    """A `LlamaForCausalLM` or a `MistralForCausalLM`."""

    family: ClassVar[str] = DecoderSpace.family

    folder: PretrainedFolder
    widths: Widths
    vocabulary: int
    """Rows of its embedding, padding included."""
    context: int
    """Longest sequence that it computes as the library does, tokens."""
    norm_epsilon: float
    rotary_base: float
    tied: bool | None
    """Whether the head is the embedding; None is so without a head of its own."""

    @classmethod
    def of(cls, folder: PretrainedFolder) -> DecoderCheckpoint:
        """Read the settings.

        Raises:
            UserError: One of them is not understood.
        """
        keys = Keys(folder.config, folder.source)
        llama = folder.config["model_type"] == "llama"
        keys.expect(
            "architectures", (None, ["LlamaForCausalLM" if llama else "MistralForCausalLM"])
        )
        keys.expect("hidden_act", ("silu",), "silu")
        for name in ("attention_bias", "mlp_bias"):
            keys.expect(name, (None, False))
        keys.expect("quantization_config", (None,))
        keys.expect("tie_word_embeddings", (None, True, False))
        embed, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
        kv_heads = keys.count("num_key_value_heads", heads if llama else None)
        if heads % kv_heads:
            raise keys.refused("num_key_value_heads", f"a divisor of num_attention_heads {heads}")
        context = keys.count("max_position_embeddings")
        if not llama and folder.config.get("sliding_window") is not None:
            context = min(context, keys.count("sliding_window"))
        return cls(
            folder=folder,
            widths=Widths(
                embed=embed,
                depth=keys.count("num_hidden_layers"),
                heads=heads,
                head_dim=keys.count("head_dim", max(1, embed // heads)),
                ffn=keys.count("intermediate_size"),
                group=heads // kv_heads,
            ),
            vocabulary=keys.count("vocab_size"),
            context=context,
            norm_epsilon=keys.number("rms_norm_eps"),
            rotary_base=_rotary_base(keys),
            tied=folder.config.get("tie_word_embeddings"),
        )

    def check(self, space: DecoderSpace) -> None:
        """Refuse a space whose largest subnet is another network than this one.

        Raises:
            UserError: It names the first key that differs, or exceeds a limit.
        """
        source = self.folder.path
        self.widths.check(space, source)
        check_equal("space.norm_epsilon", space.norm_epsilon, self.norm_epsilon, source)
        check_equal("space.rotary_base", space.rotary_base, self.rotary_base, source)
        if space.context > self.context:
            window = self.folder.config.get("sliding_window") == self.context
            key = "sliding_window" if window else "max_position_embeddings"
            raise UserError(
                f"task.context is {space.context}, but {key} of {source} is {self.context}; "
                f"write task.context: {self.context} or less"
            )
        self.check_vocabulary(space.vocabulary)

    def check_vocabulary(self, tokens: int) -> None:
        """Refuse a tokenizer with more tokens than the embedding has rows.

        Raises:
            UserError: It has.
        """
        if tokens > self.vocabulary:
            raise UserError(
                f"the tokenizer has {tokens} tokens, but {self.folder.path} only "
                f"{self.vocabulary}; set task.tokenizer to the one that it was trained with"
            )

    def weights(self, vocabulary: int) -> tuple[dict[str, Tensor], list[str]]:
        """The weights of the largest subnet by the names that a supernet gives them.

        Args:
            vocabulary: Tokens to keep the weights of, its own at most.

        Returns:
            Tensors by name, and what was done to them, a sentence each.

        Raises:
            UserError: A tensor is missing, has another shape, or has no place here.
        """
        tensors = NamedTensors(self.folder.tensors(), self.folder.path)
        embed, ffn, head_dim = self.widths.embed, self.widths.ffn, self.widths.head_dim
        group, kv_heads = self.widths.group, self.widths.heads // self.widths.group
        query, key_value = self.widths.heads * head_dim, kv_heads * head_dim
        found: dict[str, Tensor] = {}
        notes: list[str] = []
        for layer in range(self.widths.depth):
            name = f"model.layers.{layer}"

            def take(leaf: str, *shape: int, prefix: str = name) -> Tensor:
                return tensors.take(f"{prefix}.{leaf}.weight", shape=shape)

            parts = [
                take("self_attn.q_proj", query, embed).view(kv_heads, group * head_dim, embed),
                take("self_attn.k_proj", key_value, embed).view(kv_heads, head_dim, embed),
                take("self_attn.v_proj", key_value, embed).view(kv_heads, head_dim, embed),
            ]
            found |= {
                f"attention.{layer}.norm.weight": take("input_layernorm", embed),
                f"attention.{layer}.qkv.weight": torch.cat(parts, dim=1).flatten(0, 1),
                f"attention.{layer}.out.weight": take("self_attn.o_proj", embed, query),
                f"ffn.{layer}.norm.weight": take("post_attention_layernorm", embed),
                f"ffn.{layer}.gate.weight": take("mlp.gate_proj", ffn, embed),
                f"ffn.{layer}.up.weight": take("mlp.up_proj", ffn, embed),
                f"ffn.{layer}.down.weight": take("mlp.down_proj", embed, ffn),
            }
        rows = (self.vocabulary, embed)
        embedding = tensors.take("model.embed_tokens.weight", shape=rows)
        own = "lm_head.weight" in tensors or self.tied is False
        head = tensors.take("lm_head.weight", shape=rows) if own else embedding
        if self.tied:
            head = embedding
        if head is embedding:
            notes.append("its head is its embedding: from here on they are trained apart")
        if vocabulary < self.vocabulary:
            notes.append(
                f"of its {self.vocabulary} tokens the {vocabulary} of the tokenizer were kept"
            )
        found |= {
            "stem.tokens.weight": embedding[:vocabulary],
            "head.norm.weight": tensors.take("model.norm.weight", shape=(embed,)),
            "head.linear.weight": head[:vocabulary].clone(),
        }
        tensors.check_all_taken(IGNORED)
        return found, notes


def _rotary_base(keys: Keys) -> float:
    """The base of the positions, which must be plain ones.

    Version 5 of the library has them in `rope_parameters`, 4 in `rope_theta` and `rope_scaling`.
    """
    base: Any = keys.values.get("rope_theta")
    for name in ("rope_parameters", "rope_scaling"):
        settings = keys.values.get(name)
        if settings is None:
            continue
        known = {*PLAIN_ROTARY, "rope_theta"}
        plain = isinstance(settings, dict) and set(settings) <= known
        if not plain or any(settings.get(k) not in v for k, v in PLAIN_ROTARY.items()):
            raise keys.refused(name, 'null or {"rope_type": "default"}')
        base = settings.get("rope_theta", base)
    return Keys({"rope_theta": base}, keys.source).number("rope_theta", ROTARY_BASE)
