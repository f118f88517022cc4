"""A supernet with data to judge it on, untrained: an executor does not mind."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.executors.package import Package, arithmetic, pack, probe
from nas.tasks import Task, build_task
from nas.tasks.images import ImageClassification
from search_spaces import VisionTransformerSpace
from supernet.checkpoint import content_hash, named_tensors
from supernet.families import Supernet, build_supernet

POLICIES = ("fp32", "w8a8", "w4", "fp16")
DEADLY_SHARE = 0.125


class DeadlyImages(ImageClassification):
    """Ends the process that judges on an eighth of a split."""

    def metrics(self, forward, split, share=1.0):
        if share == DEADLY_SHARE:
            os._exit(1)
        return super().metrics(forward, split, share)


class HangingImages(ImageClassification):
    """The first to judge once the file `armed` is there takes it away and does not come back."""

    armed = Path("never")

    def metrics(self, forward, split, share=1.0):
        with suppress(FileNotFoundError):
            self.armed.unlink()
            time.sleep(120)
        return super().metrics(forward, split, share)


@dataclass(frozen=True)
class Subject:
    model: Supernet
    task: Task
    hash: str

    def some(self, count, seed=0):
        """Distinct architectures that are not the largest."""
        rng = np.random.default_rng(seed)
        space, found = self.model.space, {}
        while len(found) < count:
            arch = space.sample(rng)
            if arch["depth"] < space.largest["depth"]:
                found[arch] = None
        return list(found)

    def package(self) -> Package:
        return pack(self.model, self.task, self.hash, "validation")

    def introduction(self):
        return {"probe": probe(self.model, self.task, "validation"), **arithmetic()}


def vision(*, widths=(16, 32), depth=(1, 2, 3), precision=(), diverged=False, task=None):
    """A vision supernet on the digits, with seeded weights."""
    task = task or build_task("image-classification", data="digits", image_size=8, channels=1)
    fixed = {
        "image_size": 8,
        "channels": 1,
        "num_classes": 10,
        "patch_size": 2,
        "head_dim": 8,
        "embed": widths,
        "depth": depth,
        "heads": (1, 2),
        "ffn": widths,
    }
    torch.manual_seed(0)
    model = build_supernet(VisionTransformerSpace(**fixed, precision=precision)).eval()
    if diverged:
        with torch.no_grad():
            model.ffn[model.space.drop_order[0]].up.bias[:] = torch.nan
    if precision:
        model.calibrate([inputs for inputs, _ in list(task.split("train"))[:2]])
    plain = VisionTransformerSpace(**fixed)
    return Subject(model, task, content_hash(named_tensors(model), plain.to_json()))
