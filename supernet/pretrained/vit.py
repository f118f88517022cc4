"""Vision transformers of Hugging Face's transformers (`model_type: vit`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.vit import VisionTransformerSpace
from supernet.pretrained.folder import IMAGES, PretrainedFolder
from supernet.pretrained.keys import Keys
from supernet.pretrained.named import NamedTensors
from supernet.pretrained.normalisation import Normalisation
from supernet.pretrained.widths import Widths, check_equal

CLASSIFIER = "ViTForImageClassification"
IGNORED = r"(.*\.)?(mask_token|pooler\.dense\.(weight|bias))"
"""Tensors that do nothing for the class token."""


@dataclass(frozen=True, kw_only=True)
class VisionCheckpoint:
    """A `ViTForImageClassification`, or a bare `ViTModel`."""

    family: ClassVar[str] = VisionTransformerSpace.family

    folder: PretrainedFolder
    widths: Widths
    image_size: int
    """Pixels."""
    patch_size: int
    """Pixels."""
    channels: int
    norm_epsilon: float
    classes: tuple[str, ...]
    """What its head tells apart, in order; nothing without a head."""

    @classmethod
    def of(cls, folder: PretrainedFolder) -> VisionCheckpoint:
        """Read the settings.

        Raises:
            UserError: One of them is not understood.
        """
        keys = Keys(folder.config, folder.source)
        keys.expect("architectures", (None, [CLASSIFIER], ["ViTModel"]))
        keys.expect("hidden_act", ("gelu",), "gelu")
        keys.expect("qkv_bias", (True,), True)
        keys.expect("quantization_config", (None,))
        embed, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
        if embed % heads:
            raise keys.refused("num_attention_heads", f"a divisor of hidden_size {embed}")
        image_size, patch_size = keys.count("image_size"), keys.count("patch_size")
        if image_size % patch_size:
            raise keys.refused("patch_size", f"a divisor of image_size {image_size}")
        return cls(
            folder=folder,
            widths=Widths(
                embed=embed,
                depth=keys.count("num_hidden_layers"),
                heads=heads,
                head_dim=embed // heads,
                ffn=keys.count("intermediate_size"),
            ),
            image_size=image_size,
            patch_size=patch_size,
            channels=keys.count("num_channels"),
            norm_epsilon=keys.number("layer_norm_eps"),
            classes=_classes(keys),
        )

    def check(self, space: VisionTransformerSpace) -> None:
        """Refuse a space whose largest subnet is another network than this one.

        Raises:
            UserError: It names the first key that differs.
        """
        source = self.folder.path
        self.widths.check(space, source)
        check_equal("space.patch_size", space.patch_size, self.patch_size, source)
        check_equal("space.pooling", space.pooling, "cls", source)
        check_equal("space.norm_epsilon", space.norm_epsilon, self.norm_epsilon, source)
        check_equal("task.channels", space.channels, self.channels, source)

    def weights(
        self,
        image_size: int,
        task: Normalisation | None = None,
        classes: Sequence[str] = (),
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The weights of the largest subnet by the names that a supernet gives them.

        Args:
            image_size: Pixels, from now on.
            task: How images are normalised from now on; None is as they were.
            classes: What is to be told apart from now on, in order.

        Returns:
            Tensors by name, without `head.linear` where the head is to start anew; and what was
            done to them, a sentence each.

        Raises:
            UserError: A tensor is missing, has another shape, or has no place here.
        """
        tensors = NamedTensors(self.folder.tensors(), self.folder.path)
        body = "vit." if "vit.embeddings.cls_token" in tensors else ""
        embed, ffn, depth = self.widths.embed, self.widths.ffn, self.widths.depth
        patch, side = self.patch_size, self.image_size // self.patch_size
        found: dict[str, Tensor] = {}
        notes: list[str] = []

        def take(to: str, shape: tuple[int, ...], *names: str) -> None:
            found[to] = tensors.take(*(body + name for name in names), shape=shape)

        kernel = (embed, self.channels, patch, patch)
        take("stem.patches.weight", kernel, "embeddings.patch_embeddings.projection.weight")
        take("stem.patches.bias", (embed,), "embeddings.patch_embeddings.projection.bias")
        take("stem.class_token", (1, 1, embed), "embeddings.cls_token")
        take("stem.positions", (1, 1 + side**2, embed), "embeddings.position_embeddings")
        for layer in range(depth):
            # As version 4 of the library names them, and as 5 does in memory.
            old, new = f"encoder.layer.{layer}", f"layers.{layer}"
            for leaf, matrix in (("weight", (embed,)), ("bias", ())):
                for to, name in (
                    (f"attention.{layer}.norm", "layernorm_before"),
                    (f"ffn.{layer}.norm", "layernorm_after"),
                ):
                    take(f"{to}.{leaf}", (embed,), f"{old}.{name}.{leaf}", f"{new}.{name}.{leaf}")
                parts = [
                    tensors.take(
                        f"{body}{old}.attention.attention.{name}.{leaf}",
                        f"{body}{new}.attention.{name[0]}_proj.{leaf}",
                        shape=(embed, *matrix),
                    ).view(self.widths.heads, self.widths.head_dim, *matrix)
                    for name in ("query", "key", "value")
                ]  # (H, D, *E) each
                found[f"attention.{layer}.qkv.{leaf}"] = torch.stack(parts, dim=1).flatten(0, 2)
                take(
                    f"attention.{layer}.out.{leaf}",
                    (embed, *matrix),
                    f"{old}.attention.output.dense.{leaf}",
                    f"{new}.attention.o_proj.{leaf}",
                )
                take(
                    f"ffn.{layer}.up.{leaf}",
                    (ffn, *matrix),
                    f"{old}.intermediate.dense.{leaf}",
                    f"{new}.mlp.fc1.{leaf}",
                )
                take(
                    f"ffn.{layer}.down.{leaf}",
                    (embed, ffn) if matrix else (embed,),
                    f"{old}.output.dense.{leaf}",
                    f"{new}.mlp.fc2.{leaf}",
                )
        take("head.norm.weight", (embed,), "layernorm.weight")
        take("head.norm.bias", (embed,), "layernorm.bias")
        if self.classes:
            head = [
                tensors.take("classifier.weight", shape=(len(self.classes), embed)),
                tensors.take("classifier.bias", shape=(len(self.classes),)),
            ]
            places, note = _places(self.classes, tuple(classes))
            notes.append(note)
            if places is not None:
                found["head.linear.weight"], found["head.linear.bias"] = (p[places] for p in head)
        else:
            notes.append("it has no head, which starts anew")
        tensors.check_all_taken(IGNORED)
        if (now := image_size // patch) != side:
            found["stem.positions"] = interpolated(found["stem.positions"], now)
            notes.append(
                f"positions were interpolated from {side} x {side} patches to {now} x {now}"
            )
        if task is not None:
            notes.append(self._fold(found, task))
        return found, notes

    def _fold(self, found: dict[str, Tensor], task: Normalisation) -> str:
        """Let the patch embedding take images as the task normalises them."""
        settings = self.folder.images
        if settings is None:
            return f"no {IMAGES}: it is taken to know images normalised as they are here"
        theirs = Normalisation.of_processor(settings, self.channels, self.folder.path / IMAGES)
        names = "stem.patches.weight", "stem.patches.bias"
        folded = theirs.folded(found[names[0]], found[names[1]], task)
        found.update(zip(names, folded, strict=True))
        return "its normalisation of images was folded into the patch embedding"


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Positions for another number of patches, bicubic (arXiv:2010.11929, section 3.2).

    Args:
        positions: Of a class token and a square of patches, shape `(1, 1 + N, E)`.
        side: Side of the new square, patches.

    Returns:
        Shape `(1, 1 + side**2, E)`.
    """
    first, patches = positions[:, :1], positions[:, 1:]
    before = round(patches.shape[1] ** 0.5)
    grid = patches.view(1, before, before, -1).permute(0, 3, 1, 2)  # (1, E, N, N)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)


def _classes(keys: Keys) -> tuple[str, ...]:
    """Names of the classes; the library leaves out those of two that have none."""
    if keys.values.get("architectures") != [CLASSIFIER]:
        return ()
    names = keys.values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    try:
        return tuple(str(names[str(index)]) for index in range(len(names)))
    except (KeyError, TypeError):
        raise keys.refused("id2label", "a name for each class from 0 on") from None


def _places(theirs: tuple[str, ...], ours: tuple[str, ...]) -> tuple[list[int] | None, str]:
    """Which rows of a head are those of our classes, or None; and a sentence that says so."""
    if len(theirs) != len(ours):
        return None, f"its head tells {len(theirs)} classes apart, not {len(ours)}: it starts anew"
    if sorted(theirs) == sorted(ours) and len(set(ours)) == len(ours):
        return [theirs.index(name) for name in ours], "its head was kept, class by class"
    if all(name == f"LABEL_{index}" for index, name in enumerate(theirs)):
        return list(range(len(ours))), "its head was kept; its classes have no names, only an order"
    return None, "its head tells other classes apart: it starts anew"
