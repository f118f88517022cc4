"""What a commented configuration says for a pretrained network: its widths, and smaller ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.stages.pretrained import check_start
from search_spaces.errors import UserError
from supernet.pretrained import DecoderCheckpoint, open_pretrained
from supernet.pretrained.widths import Widths

TEMPLATES: Mapping[str, tuple[str, ...]] = {"vit": ("images",), "decoder": ("text", "stdlib-text")}
"""Of `nas init`, those that a family of networks is for."""
SHARES = (1 / 2, 3 / 4, 1)
FFN_SHARES = (1 / 4, *SHARES)
CONTEXT = 256
"""Tokens at most, unless the user asks for more: attention's cost grows with them."""
RATE = 0.064
"""Highest learning rate times the embedding width: 1e-3 at 64, 8e-5 at 768."""
HIGHEST_RATE = 1e-3
STEPS, WARMUP_STEPS = 3000, 300

Values = dict[str, str | tuple[str, str]]


def pretrained_values(task: str, path: str) -> Values:
    """Values for `nas.cli.template_values.with_values`.

    Args:
        task: Name of the template.
        path: The checkpoint's folder, as the user gave it.

    Raises:
        UserError: The checkpoint is of another kind than the template, or no training can start
            from it.
    """
    checkpoint = open_pretrained(Path(path).expanduser())
    fitting = TEMPLATES[checkpoint.family]
    if task not in fitting:
        raise UserError(
            f"--pretrained {path} is of the family {checkpoint.family}, which {task} is not for; "
            f"write nas init {' or '.join(fitting)}"
        )
    check_start(checkpoint)
    rate = min(HIGHEST_RATE, RATE / checkpoint.widths.embed)
    own = "as in the pretrained network"
    values: Values = {
        "space.norm_epsilon": (_number(checkpoint.norm_epsilon), own),
        "training.pretrained": (json.dumps(path), "the weights to start from"),
        "training.importance_order": ("true", "what matters most comes first"),
        "training.steps": str(STEPS),
        "training.warmup_steps": str(WARMUP_STEPS),
        "training.learning_rate": (_number(float(f"{rate:.0e}")), "lower than from scratch"),
        "training.dropout": "0.0",
        "training.distillation": "kl",
    }
    values |= _space(checkpoint.widths)
    if isinstance(checkpoint, DecoderCheckpoint):
        values["space.group"] = str(checkpoint.widths.group)
        values["space.rotary_base"] = (_number(checkpoint.rotary_base), own)
        return {**values, **_text(checkpoint)}
    values["space.patch_size"] = str(checkpoint.patch_size)
    values["space.pooling"] = ("cls", "what the pretrained network was trained with")
    values["task.image_size"] = str(checkpoint.image_size)
    values["task.channels"] = str(checkpoint.channels)
    return values


def smaller(width: int, shares: Sequence[float], step: int) -> list[int]:
    """Shares of a width, each rounded to a multiple of `step`, and the width itself."""
    rounded = {max(step, math.floor(width * share / step + 0.5) * step) for share in shares}
    return sorted({value for value in rounded if value < width} | {width})


def _space(widths: Widths) -> Values:
    """The network itself as the largest choice of everything."""
    choices = {
        "embed": smaller(widths.embed, SHARES, _step(widths.embed)),
        "depth": smaller(widths.depth, SHARES, 1),
        "heads": smaller(widths.heads, SHARES, widths.group),
        "ffn": smaller(widths.ffn, FFN_SHARES, _step(widths.ffn)),
    }
    values: Values = {f"space.{name}": str(found) for name, found in choices.items()}
    values["space.head_dim"] = str(widths.head_dim)
    return values


def _text(checkpoint: DecoderCheckpoint) -> Values:
    """Tokens, and the calls of a network with a bounded context."""
    context = min(CONTEXT, checkpoint.context)
    if checkpoint.folder.tokenizer is not None:
        tokenizer = json.dumps(str(checkpoint.folder.tokenizer))
    elif checkpoint.vocabulary == 256:
        tokenizer = "bytes"
    else:
        raise UserError(
            f"{checkpoint.folder.path} has no tokenizer.json; put the one there that it was "
            "trained with"
        )
    return {
        "task.tokenizer": (tokenizer, "the one that it was trained with"),
        "task.vocabulary": ("null", "number of tokens; null is what the tokenizer has"),
        "task.context": (str(context), f"longest sequence, tokens; at most {checkpoint.context}"),
        "workloads.prefill": (f"{{sequence: {context}}}", f"a prompt of {context} tokens"),
        "workloads.decode": (
            f"{{past: {context - 1}}}",
            f"one token behind {context - 1} in the KV cache",
        ),
    }


def _step(width: int) -> int:
    """Eight, which runtimes like; one where that would leave nothing to choose."""
    return 8 if width >= 16 else 1


def _number(value: float) -> str:
    """A number as YAML reads it."""
    return f"{value:g}".replace("e-0", "e-") if f"{value:g}" == repr(value) else repr(value)
