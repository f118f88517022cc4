"""The supernet of each network family."""

from __future__ import annotations

from search_spaces.decoder import DecoderSpace
from search_spaces.transformer import TransformerSpace
from search_spaces.vit import VisionTransformerSpace
from supernet.decoder import DecoderSupernet
from supernet.vit import VisionTransformerSupernet

Supernet = VisionTransformerSupernet | DecoderSupernet


def build_supernet(space: TransformerSpace) -> Supernet:
    """A supernet of `space` with random weights.

    Raises:
        TypeError: The space is of no known family.
    """
    if isinstance(space, VisionTransformerSpace):
        return VisionTransformerSupernet(space)
    if isinstance(space, DecoderSpace):
        return DecoderSupernet(space)
    raise TypeError(f"no supernet for {type(space).__name__}")
