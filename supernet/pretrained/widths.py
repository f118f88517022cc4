"""Whether a search space has a checkpoint's network for its largest subnet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import UserError
from search_spaces.transformer import TransformerSpace


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What networks of all families have; all layers are alike."""

    embed: int
    """Embedding width."""
    depth: int
    """Layers."""
    heads: int
    """Query heads of a layer."""
    head_dim: int
    """Features of a head."""
    ffn: int
    """Hidden width of the feed-forward part."""
    group: int = 1
    """Query heads that share one key/value head."""

    def check(self, space: TransformerSpace, source: Path) -> None:
        """Refuse a space whose largest subnet is another network.

        Args:
            space: The space.
            source: The checkpoint, for messages.

        Raises:
            UserError: It names the first key that differs.
        """
        for name in ("embed", "depth", "heads", "ffn"):
            choices = space.choices[name if name in space.choices else f"{name}.0"]
            wanted = getattr(self, name)
            if choices[-1] != wanted:
                raise UserError(
                    f"space.{name} ends with {choices[-1]}, but {source} has {wanted}; its largest "
                    f"choice must be {wanted}"
                )
        for name in ("head_dim", "group"):
            check_equal(f"space.{name}", getattr(space, name), getattr(self, name), source)


def check_equal(key: str, ours: object, wanted: object, source: Path) -> None:
    """Refuse a setting that is not the checkpoint's."""
    if ours != wanted:
        raise UserError(f"{key} is {ours}, but {source} has {wanted}; write {key}: {wanted}")
