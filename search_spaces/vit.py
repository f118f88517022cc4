"""Elastic vision transformers (arXiv:2010.11929) as a search space, with their analytic cost."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.blocks import Block, Cost, Workload
from search_spaces.errors import UserError
from search_spaces.transformer import TransformerSpace


class VisionTransformerSpace(TransformerSpace):
    """Subnets of a vision transformer that classifies square images.

    Args:
        image_size: Height and width of an image, in pixels.
        patch_size: Height and width of a patch; divides `image_size`.
        channels: Channels of an image.
        num_classes: Classes.
        pooling: `cls` (a class token) or `mean` (over all tokens).
        head_dim: Features of one attention head.
        embed: Embedding widths.
        depth: Numbers of layers.
        heads: Attention heads of a layer.
        ffn: FFN widths of a layer.
        drop_order: See `TransformerSpace`.
        precision: See `TransformerSpace`.
        precision_ends: See `TransformerSpace`.
        norm_epsilon: Of LayerNorm; None is 1e-5.
    """

    family = "vit"
    default_norm_epsilon = 1e-5

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        num_classes: int,
        head_dim: int,
        embed: Sequence[int],
        depth: Sequence[int],
        heads: Sequence[int],
        ffn: Sequence[int],
        pooling: str = "cls",
        drop_order: Sequence[int] | None = None,
        precision: Sequence[str] = (),
        precision_ends: Sequence[str] = (),
        norm_epsilon: float | None = None,
    ) -> None:
        for name, value in (
            ("image_size", image_size),
            ("patch_size", patch_size),
            ("channels", channels),
            ("num_classes", num_classes),
        ):
            if value < 1:
                raise UserError(f"{name} {value} is below 1; give a positive integer")
        if image_size % patch_size:
            raise UserError(
                f"space.patch_size {patch_size} does not divide the image size {image_size}; "
                "edit space.patch_size or task.image_size"
            )
        if pooling not in ("cls", "mean"):
            raise UserError(f"space.pooling {pooling!r} is not one of ('cls', 'mean')")
        self.image_size = image_size
        self.patch_size = patch_size
        self.channels = channels
        self.num_classes = num_classes
        self.pooling = pooling
        super().__init__(
            embed=embed,
            depth=depth,
            heads=heads,
            ffn=ffn,
            head_dim=head_dim,
            drop_order=drop_order,
            precision=precision,
            precision_ends=precision_ends,
            norm_epsilon=norm_epsilon,
        )

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image: its patches and, with `cls` pooling, the class token."""
        return self.patches + (self.pooling == "cls")

    @property
    def default_workload(self) -> Workload:
        """One image."""
        return Workload()

    def check_workload(self, workload: Workload) -> None:
        """Images have a batch size only.

        Raises:
            UserError: The workload has a sequence length or a key/value cache.
        """
        if workload.sequence is not None or workload.past:
            raise UserError(f"workload {workload} is for a language model; images have batch only")

    def block_cost(self, block: Block, workload: Workload) -> Cost:
        """Cost of one block; MACs count every matrix product and the patch convolution."""
        embed = block.width("embed")
        tokens, patch = self.tokens, self.channels * self.patch_size**2
        if block.kind == "fixed":
            macs = self.patches * patch * embed + embed * self.num_classes
            stem = patch * embed + embed + tokens * embed + embed * (self.pooling == "cls")
            parameters = stem + 2 * embed + embed * self.num_classes + self.num_classes
        elif block.kind == "attention":
            width = block.width("heads") * self.head_dim
            macs = tokens * embed * 4 * width + 2 * tokens * tokens * width
            parameters = 2 * embed + embed * 3 * width + 3 * width + width * embed + embed
        else:
            ffn = block.width("ffn")
            macs = 2 * tokens * embed * ffn
            parameters = 2 * embed + 2 * embed * ffn + ffn + embed
        return Cost(
            macs=workload.batch * macs,
            parameters=parameters,
            size_bytes=self.size_bytes(block, parameters),
        )

    def linears(self, block: Block) -> dict[str, tuple[tuple[int, int], ...]]:
        """See `TransformerSpace`."""
        embed = block.width("embed")
        if block.kind == "attention":
            width = block.width("heads") * self.head_dim
            return {"qkv": ((3 * width, embed),), "attention_out": ((embed, width),)}
        if block.kind == "ffn":
            ffn = block.width("ffn")
            return {"ffn_in": ((ffn, embed),), "ffn_out": ((embed, ffn),)}
        patch = self.channels * self.patch_size**2
        return {"stem": ((embed, patch),), "head": ((self.num_classes, embed),)}

    def to_json(self) -> dict[str, object]:
        """Everything that `space_from_json` needs."""
        return super().to_json() | {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "channels": self.channels,
            "num_classes": self.num_classes,
            "pooling": self.pooling,
        }
