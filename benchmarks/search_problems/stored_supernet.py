"""A trained supernet whose subnets are evaluated once, for all algorithms, seeds and processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.atomic import read_json
from nas.config import Config, load_config
from nas.run import Run
from nas.run_directory import RunDirectory
from nas.stages.supernet import (
    TrainedSupernet,
    evaluate,
    open_supernet,
    stored_split,
    train,
)
from nas.tasks import SplitName
from search_spaces import Architecture, TransformerSpace, space_from_json

SPLIT: SplitName = "validation"


class StoredSupernet:
    """Validation metrics of subnets, from the store of a run directory or computed into it.

    Several processes may use one directory at the same time: a subnet that two of them compute at
    once gets the same values in both, and is kept once.

    Args:
        config: The configuration; its output is the run directory.
    """

    def __init__(self, config: Config) -> None:
        directory = RunDirectory(config.output_path, config.device)
        if not directory.supernet_json.exists():
            with Run.open(config) as run:
                train(run)
        info = read_json(directory.supernet_json)
        self._run = Run.open(config, exclusive=False)
        self._hash: str = info["hash"]
        self.space: TransformerSpace = space_from_json(info["space"])
        self._known: dict[float, dict[Architecture, dict[str, float]]] = {}

    @cached_property
    def supernet(self) -> TrainedSupernet:
        """The supernet itself."""
        # Weights and data are read only where something has to be computed.
        return open_supernet(self._run)

    def metrics(
        self, architectures: Sequence[Architecture], names: Sequence[str], share: float = 1.0
    ) -> NDArray[np.float64]:
        """Metrics of n subnets on a share of the validation split, shape `(n, len(names))`."""
        split = stored_split(SPLIT, share)
        if share not in self._known:
            self._known[share] = self._run.store.all(self._hash, split)
        known, computed = self._known[share], {}
        for arch in architectures:
            if arch not in known:
                found = self._run.store.get(self._hash, arch, split)
                if found is None:
                    model, task = self.supernet.model, self.supernet.task
                    found = computed[arch] = evaluate(model, task, arch, SPLIT, share)
                known[arch] = found
        if computed:
            self._run.store.add(self._hash, split, computed)
        return np.array([[known[arch][name] for name in names] for arch in architectures])


def stored_supernet(example: str, folder: Path, overrides: Sequence[str]) -> StoredSupernet:
    """Train the supernet of an example in a run directory of its own, or open it."""
    config = load_config(example, ["training.threads=1", *overrides, f"output={folder}"])
    return StoredSupernet(config)
