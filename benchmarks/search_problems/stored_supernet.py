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
from nas.stages.supernet import TrainedSupernet, evaluate, open_supernet, train
from search_spaces import Architecture, TransformerSpace, space_from_json

SPLIT = "validation"


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
        self._known = self._run.store.all(self._hash, SPLIT)

    @cached_property
    def _supernet(self) -> TrainedSupernet:
        # Weights and data are read only where something has to be computed.
        return open_supernet(self._run)

    def metrics(
        self, architectures: Sequence[Architecture], names: Sequence[str]
    ) -> NDArray[np.float64]:
        """Metrics of n subnets on the validation split, shape `(n, len(names))`."""
        computed = {}
        for arch in architectures:
            if arch not in self._known:
                known = self._run.store.get(self._hash, arch, SPLIT)
                if known is None:
                    model, task = self._supernet.model, self._supernet.task
                    known = computed[arch] = evaluate(model, task, arch, SPLIT)
                self._known[arch] = known
        if computed:
            self._run.store.add(self._hash, SPLIT, computed)
        return np.array([[self._known[arch][name] for name in names] for arch in architectures])


def stored_supernet(example: str, folder: Path, overrides: Sequence[str]) -> StoredSupernet:
    """Train the supernet of an example in a run directory of its own, or open it."""
    config = load_config(example, ["training.threads=1", *overrides, f"output={folder}"])
    return StoredSupernet(config)
