"""The network families by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.decoder import DecoderSpace
from search_spaces.errors import UserError
from search_spaces.transformer import TransformerSpace
from search_spaces.vit import VisionTransformerSpace

FAMILIES: dict[str, type[TransformerSpace]] = {
    VisionTransformerSpace.family: VisionTransformerSpace,
    DecoderSpace.family: DecoderSpace,
}


def space_from_json(data: Mapping[str, Any]) -> TransformerSpace:
    """The space that `TransformerSpace.to_json` described.

    Raises:
        UserError: The family or a key is unknown, or a key is missing.
    """
    fields = dict(data)
    family = fields.pop("family", None)
    if family not in FAMILIES:
        raise UserError(f"space.family {family!r} is not one of {tuple(FAMILIES)}")
    try:
        return FAMILIES[family](**fields)
    except TypeError as error:
        raise UserError(f"space of family {family!r}: {error}") from None
