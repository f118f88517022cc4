"""Small spaces with precision policies, of both families: the same for all tests of policies."""

from search_spaces.schemes import SCHEMES
from tests.search_spaces.test_transformer_spaces import text, vision

ALL = tuple(SCHEMES)
FEW = ("fp32", "w8", "w8a8")
FAMILIES = ("vit", "decoder")


def policy_space(family, precision=ALL, **changes):
    """The space of a family, with some schemes and other changes."""
    return {"vit": vision, "decoder": text}[family](precision=precision, **changes)
