"""Which predictor a run uses: chosen on its whole subnets, kept in `table.json`, read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from latency.noise import Noise
from latency.table import LatencyTable, TableRow
from nas.atomic import read_json
from nas.run import Run
from predictors.choice import choose
from predictors.learned import LearnedPredictor
from predictors.protocol import ArchitecturePredictor
from predictors.regressors import REGRESSORS
from predictors.table import Correction, TablePredictor
from predictors.transfer import TransferPredictor
from search_spaces import Architecture, Block, TransformerSpace, UserError

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

    @property
    def size(self) -> Callable[[Architecture], float]:
        """What subnets to measure are spread over: a first guess of their latency."""
        if self.kind == "transfer":
            return self._source().latency_ms
        load = self.run.config.calls[self.workload]
        return lambda arch: float(self.space.cost(arch, load).macs)

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
            return table, table.correction.to_json()
        choice = choose(candidates, architectures, latency_ms, noise=noise)
        chosen = choice.predictor
        errors = {name: round(error, 6) for name, error in choice.errors.items()}
        if isinstance(chosen, TablePredictor):
            return chosen, {**chosen.correction.to_json(), "cross_validation_mape": errors}
        assert isinstance(chosen, LearnedPredictor | TransferPredictor)
        fitted = {"kind": choice.name, "std": chosen.std, "subnets": len(architectures)}
        if choice.name == "transfer":
            fitted["source"] = self.run.config.latency.source
        return chosen, {**fitted, "cross_validation_mape": errors}

    def read(self, fit: Mapping[str, Any], whole: Whole) -> ArchitecturePredictor:
        """The predictor that `fit` described: fitted again on the whole subnets of the file."""
        if fit["kind"] == "factors":
            correction = Correction(
                coefficients=tuple(fit["coefficients"]), std=fit["std"], subnets=fit["subnets"]
            )
            return TablePredictor(self.space, self.table, self.workload, correction)
        chosen: LearnedPredictor | TransferPredictor
        if fit["kind"] == "transfer":
            chosen = TransferPredictor(self._source())
        else:
            chosen = LearnedPredictor(self.space, fit["kind"])
        measured = [
            (self.space.architecture(entry["architecture"]), entry["measured_ms"])
            for entry in whole
            if entry["workload"] == self.workload and entry["measured_ms"] is not None
        ]
        chosen.fit([arch for arch, _ in measured], [latency for _, latency in measured])
        chosen.std = fit["std"]
        return chosen

    def _candidates(self) -> dict[str, ArchitecturePredictor]:
        """By name, the simpler first."""
        if self.kind == "transfer":
            return {self.kind: TransferPredictor(self._source())}
        if self.kind == "learned":
            if self.space.precision:
                raise UserError(
                    "latency.predictor learned knows nothing of space.precision; set "
                    "latency.predictor to table"
                )
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
        path = self.run.directory.of_device(str(device)).table
        if device is None or device == self.run.device or not path.exists():
            raise UserError(
                f"latency.source {device} is no other device with a table in this directory; "
                "run `nas measure --device SOURCE` first, then name it with latency.source=SOURCE"
            )
        data = read_json(path)
        load = self.run.config.calls[self.workload].to_json()
        same = data["space"] == self.space.digest and data["workloads"].get(self.workload) == load
        if not same or not data["rows"]:
            raise UserError(
                f"{path} has no rows for this space and workload {self.workload!r}; "
                f"run `nas measure --device {device} latency.predictor=table` first"
            )
        rows = read_rows(data)
        predictor = TablePredictor(self.space, rows, self.workload)
        fit = data["corrections"][self.workload]
        if fit["kind"] == "factors":
            predictor.correction = Correction(
                coefficients=tuple(fit["coefficients"]), std=fit["std"], subnets=fit["subnets"]
            )
        return predictor


def read_rows(data: Mapping[str, Any]) -> LatencyTable:
    """The rows of a `table.json`."""
    return LatencyTable(
        TableRow(
            block=Block.of_genes(row["kind"], row["widths"]),
            **{key: row[key] for key in row if key not in ("kind", "widths")},
        )
        for row in data["rows"]
    )
