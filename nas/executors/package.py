"""All that a worker needs to judge subnets, as bytes: it may have no file of the user's."""

from __future__ import annotations

import hashlib
import pickle
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nas.environment import package_version
from nas.executors.executor import Metrics
from nas.tasks import SplitName, Task
from search_spaces import Architecture, UserError, space_from_json
from supernet.checkpoint import content_hash, load_weights, named_tensors
from supernet.families import Supernet, build_supernet


@torch.inference_mode()
def evaluate(
    model: Supernet, task: Task, arch: Architecture, split: SplitName, share: float = 1.0
) -> Metrics:
    """Metrics of one subnet inside the supernet, on a share of a split."""
    return task.metrics(lambda inputs: model(inputs, arch), split, share)


@torch.inference_mode()
def probe(model: Supernet, task: Task, split: SplitName) -> str:
    """sha256 (hex) of the logits of the largest and the smallest subnet on a first batch.

    Machines that give the same bits here have the same arithmetic: the same instructions, as many
    threads, libraries that sum in the same order.
    """
    inputs, _ = next(iter(task.split(split)))
    digest = hashlib.sha256()
    for arch in (model.space.largest, model.space.smallest):
        digest.update(model(inputs, arch).contiguous().numpy().data)
    return digest.hexdigest()


def arithmetic() -> dict[str, Any]:
    """What decides the last bits of an evaluation on this machine, for messages."""
    return {
        "elastic-nas": package_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True, kw_only=True)
class Package:
    """A supernet with one split of its data, and how it is run."""

    hash: str
    """Content hash of the weights, which names the package."""
    space: dict[str, Any]
    """The search space, with its precision policies."""
    weights: bytes = field(repr=False)
    """The weights, as a safetensors file holds them."""
    task: Task = field(repr=False)
    """The data: that split alone."""
    split: SplitName
    """Name of the split."""
    calibration: tuple[Tensor, ...] = field(repr=False)
    """Inputs that quantization is fitted to; none without policies."""
    threads: int
    """Threads of an evaluation. They decide its last bits."""

    def to_bytes(self) -> bytes:
        """For `Opened` on a worker. Goes from process to process, never to a file."""
        return pickle.dumps(self, protocol=5)


def pack(model: Supernet, task: Task, supernet_hash: str, split: SplitName) -> Package:
    """Put a calibrated supernet and one split together, with the threads of this process."""
    return Package(
        hash=supernet_hash,
        space=dict(model.space.to_json()),
        weights=save({name: each.contiguous() for name, each in named_tensors(model).items()}),
        task=task.only(split),
        split=split,
        calibration=model.calibration if model.space.precision else (),
        threads=torch.get_num_threads(),
    )


class Opened:
    """A package that was opened: judges subnets as the process that packed it does.

    Sets the number of threads of the process.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        """Build the supernet.

        Raises:
            UserError: The weights are not those that the package is named after.
        """
        package: Package = pickle.loads(data)
        torch.set_num_threads(package.threads)
        tensors = load(package.weights)
        plain = {k: v for k, v in package.space.items() if k not in ("precision", "precision_ends")}
        if content_hash(tensors, plain) != package.hash:
            raise UserError(
                f"the weights that arrived are not those of supernet {package.hash[:16]}; start "
                "the same command again"
            )
        self._model = build_supernet(space_from_json(package.space))
        load_weights(self._model, tensors, source=Path(package.hash[:16]))
        if package.calibration:
            self._model.calibrate(package.calibration)
        self._model.eval()
        self._task = package.task
        self._split: SplitName = package.split

    def introduction(self) -> dict[str, Any]:
        """The probe, and the facts that explain a difference."""
        return {"probe": probe(self._model, self._task, self._split), **arithmetic()}

    def evaluate(self, arch: Architecture, share: float) -> Metrics:
        """Metrics of one subnet on a share of the split."""
        return evaluate(self._model, self._task, arch, self._split, share)
