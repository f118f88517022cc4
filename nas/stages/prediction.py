"""Which predictor a run uses: chosen on its whole subnets, kept in `table.json`, read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from latency.noise import Noise
from latency.table import LatencyTable, TableRow
from nas.atomic import read_json
from nas.run import Run
from predictors.choice import choose
from predictors.learned import LearnedPredictor
from predictors.protocol import ArchitecturePredictor
from predictors.regressors import REGRESSORS
from predictors.table import TablePredictor
from predictors.transfer import TransferPredictor
from search_spaces import (
    Architecture,
    Block,
    TransformerSpace,
    UserError,
    sample_by_cost,
    sample_widely,
)
from search_spaces.schemes import later_versions

WITHOUT_TABLE = ("learned", "transfer")
"""Values of `latency.predictor` that measure no blocks."""
POOL = 2000
"""Subnets among which those to measure are chosen."""
Whole = Sequence[Mapping[str, Any]]
"""Whole subnets as they stand in `table.json`."""


class Prediction:
    """Fits and reads the predictors of one kind, for one workload.

    Args:
        run: `latency.source` names the device that `transfer` starts from.
        space: The search space.
        table: Rows of the device; empty if it was to be spared that.
        workload: Name of the workload.
        kind: One of the values of `latency.predictor`.
    """

    def __init__(
        self, run: Run, space: TransformerSpace, table: LatencyTable, workload: str, kind: str
    ) -> None:
        self.run = run
        self.space = space
        self.table = table
        self.workload = workload
        self.kind = kind

    def propose(self, count: int) -> list[Architecture]:
        """Whole subnets to measure, at most `count`: those that say most of all others.

        A table is corrected by subnets of all sizes; what is learned without one, by a design
        (`predictors.design`) over a few thousand subnets.
        """
        rng = np.random.default_rng(self.run.config.seed)
        if self.kind not in WITHOUT_TABLE:
            load = self.run.config.calls[self.workload]
            return sample_by_cost(
                self.space, lambda arch: float(self.space.cost(arch, load).macs), count, rng
            )
        pool = sample_widely(self.space, POOL, rng)
        predictor: LearnedPredictor | TransferPredictor = LearnedPredictor(self.space)
        if self.kind == "transfer":
            predictor = TransferPredictor(self._source())
        return predictor.propose(pool, count) if 0 < count < len(pool) else pool[:count]

    def fit(
        self, architectures: Sequence[Architecture], latency_ms: ArrayLike, noise: Noise
    ) -> tuple[ArchitecturePredictor, dict[str, Any]]:
        """The best predictor for what was measured, and what `table.json` keeps of it.

        Raises:
            UserError: There are too few subnets to learn from.
        """
        candidates = self._candidates()
        if not architectures and "table" in candidates:
            table = TablePredictor(self.space, self.table, self.workload)
            return table, table.to_json()
        choice = choose(candidates, architectures, latency_ms, noise=noise)
        chosen = choice.predictor
        errors = {name: round(error, 6) for name, error in choice.errors.items()}
        if isinstance(chosen, TablePredictor):
            return chosen, {**chosen.to_json(), "cross_validation_mape": errors}
        assert isinstance(chosen, LearnedPredictor | TransferPredictor)
        fitted = {"kind": choice.name, "std": chosen.std, "subnets": len(architectures)}
        if choice.name == "transfer":
            fitted["source"] = self.run.config.latency.source
        return chosen, {**fitted, "cross_validation_mape": errors}

    def read(self, fit: Mapping[str, Any], whole: Whole) -> ArchitecturePredictor:
        """The predictor that `fit` described: fitted again on the whole subnets of the file."""
        if fit["kind"] == "factors":
            return TablePredictor(self.space, self.table, self.workload).restore(fit)
        if fit["kind"] not in (*REGRESSORS, "transfer"):
            raise ValueError(f"no predictor is called {fit['kind']}")
        measured = [
            (self.space.architecture(entry["architecture"]), entry["measured_ms"])
            for entry in whole
            if entry["workload"] == self.workload and entry["measured_ms"] is not None
        ]
        architectures, latency_ms = [arch for arch, _ in measured], [ms for _, ms in measured]
        if fit["kind"] != "transfer":
            learned = LearnedPredictor(self.space, fit["kind"])
            return learned.restore(architectures, latency_ms, fit["std"])
        transfer = TransferPredictor(self._source()).fit(architectures, latency_ms)
        transfer.std = fit["std"]
        return transfer

    def _candidates(self) -> dict[str, ArchitecturePredictor]:
        """By name, the simpler first."""
        if self.kind == "transfer":
            return {self.kind: TransferPredictor(self._source())}
        if self.kind == "learned":
            return {name: LearnedPredictor(self.space, name) for name in REGRESSORS}
        found: dict[str, ArchitecturePredictor] = {
            "table": TablePredictor(self.space, self.table, self.workload)
        }
        if self.kind == "auto" and not self.space.precision:
            found["ridge"] = LearnedPredictor(self.space)
        return found

    def _source(self) -> TablePredictor:
        """The other device's table, for the same space and workload.

        Raises:
            UserError: There is none.
        """
        device = self.run.config.latency.source
        if device is None:
            raise UserError(
                "latency.predictor is transfer, which starts from another device's table; name it "
                "with latency.source=DEVICE"
            )
        path = self.run.directory.of_device(device).table
        if device == self.run.device or not path.exists():
            raise UserError(
                f"latency.source {device} is no other device with a table in this directory; "
                "run `nas measure --device SOURCE` first, then name it with latency.source=SOURCE"
            )
        data = read_json(path)
        load = self.run.config.calls[self.workload].to_json()
        same = (
            data["space"] == self.space.digest
            and data["workloads"].get(self.workload) == load
            and data.get("schemes", {}) == later_versions(self.space.precision)
        )
        if not same or not data["rows"]:
            raise UserError(
                f"{path} has no rows for this space and workload {self.workload!r}; "
                f"run `nas measure --device {device} latency.predictor=table` first"
            )
        rows = read_rows(data)
        predictor = TablePredictor(self.space, rows, self.workload)
        fit = data["corrections"][self.workload]
        if fit["kind"] == "factors":
            predictor.restore(fit)
        return predictor


def read_rows(data: Mapping[str, Any]) -> LatencyTable:
    """The rows of a `table.json`.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: It is damaged.
    """
    for row in data["rows"]:
        for name in ("latency_ms", "low_ms", "high_ms"):
            if isinstance(row[name], str | None) or not 0 <= row[name] < math.inf:
                raise ValueError(f"{name} {row[name]!r} of {row['kind']} {row['widths']}")
    return LatencyTable(
        TableRow(
            block=Block.of_genes(row["kind"], row["widths"]),
            **{key: row[key] for key in row if key not in ("kind", "widths")},
        )
        for row in data["rows"]
    )
