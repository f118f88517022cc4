"""In which number format a training multiplies: fp32, or bf16 where the hardware has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, Literal

import torch

from search_spaces.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: Final = ("auto", "fp32", "bf16")


def resolve_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """What `precision` means on `device`.

    Args:
        precision: `auto` is bf16 where `device` multiplies it in hardware, else fp32; `fp32` and
            `bf16` are taken as they are, since bf16 is computed everywhere, if slowly.
        device: Where the training runs.

    Raises:
        UserError: Another name.
    """
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        return "bf16"
    if precision == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    raise UserError(f"precision {precision!r} is not one of {PRECISIONS}; edit training.precision")


def has_native_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are a matter of the hardware of `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities()
        return any(flags.get(flag) is True for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def autocast_context(
    precision: Literal["fp32", "bf16"], device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """A maker of contexts in which matrix products run in `precision`; parameters stay fp32."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device_type=device.type, dtype=torch.bfloat16)
