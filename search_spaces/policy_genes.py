"""Genes that choose a scheme: their names, and the schemes that a space may give them."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.blocks import PRECISION
from search_spaces.errors import UserError
from search_spaces.schemes import ENDS, FULL, SCHEMES
from search_spaces.space import Choice


def gene(part: str, layer: int | None = None) -> str:
    """Name of the gene that chooses the scheme of a part of a layer, or of stem or head."""
    return f"{PRECISION}{part}" if layer is None else f"{PRECISION}{part}.{layer}"


def at_least(choices: Sequence[Choice], name: str) -> str:
    """The coarsest of a gene's choices, fp32 among them, that is no coarser than a scheme."""
    finer = list(SCHEMES)[list(SCHEMES).index(name) :]
    return next(str(choice) for choice in choices if choice in finer)


def checked_schemes(names: Sequence[str]) -> tuple[str, ...]:
    """The schemes of a space from coarse to fine; none where there is no choice but fp32.

    Raises:
        UserError: A name is unknown or there twice, or fp32 is missing.
    """
    for name in names:
        if name not in SCHEMES:
            raise UserError(f"space.precision {name!r} is not one of {', '.join(SCHEMES)}")
    if len(set(names)) < len(names):
        raise UserError(f"space.precision {list(names)} names a scheme twice; name each once")
    if names and FULL not in names:
        raise UserError(
            f"space.precision {list(names)} lacks {FULL}, which all is compared with; add it"
        )
    return tuple(name for name in SCHEMES if name in names) if len(names) > 1 else ()


def checked_ends(names: Sequence[str]) -> tuple[str, ...]:
    """Which of stem and head have schemes, in that order.

    Raises:
        UserError: A name is neither.
    """
    for name in names:
        if name not in ENDS:
            raise UserError(f"space.precision_ends {name!r} is not one of {', '.join(ENDS)}")
    return tuple(name for name in ENDS if name in names)
