"""The latency table that a run has, as predictors."""

from __future__ import annotations

from latency.table import LatencyTable, TableRow
from nas.atomic import read_json
from nas.run import Run
from nas.stages.measure import DeviceLab, measure_device
from predictors.table import Correction, TablePredictor
from search_spaces import Block, TransformerSpace, UserError


def load_predictors(run: Run, space: TransformerSpace) -> dict[str, TablePredictor]:
    """The predictors of `table.json`, by workload.

    Raises:
        UserError: There is no table, or it is of another space, device or workload.
    """
    path = run.directory.table
    if not path.exists():
        if DeviceLab(run, space).absence is None:
            raise UserError(f"{path} does not exist; run `nas measure` first")
        measure_device(run, space)
    data = read_json(path)
    try:
        workloads = {name: load.to_json() for name, load in run.config.calls.items()}
        for what, found, wanted in (
            ("search space", data["space"], space.digest),
            ("device", data["device"]["name"], run.device),
            ("workload", data["workloads"], workloads),
            ("measuring mode", data["mode"], run.config.latency.mode),
        ):
            if found != wanted:
                raise UserError(
                    f"{path} is of another {what} ({found}, not {wanted}); run `nas measure` again"
                )
        table = LatencyTable(
            TableRow(
                block=Block(kind=row["kind"], widths=tuple(row["widths"].items())),
                **{key: row[key] for key in row if key not in ("kind", "widths")},
            )
            for row in data["rows"]
        )
        corrections = {
            name: Correction(
                coefficients=tuple(fit["coefficients"]), std=fit["std"], subnets=fit["subnets"]
            )
            for name, fit in data["corrections"].items()
        }
        return {name: TablePredictor(space, table, name, corrections[name]) for name in workloads}
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}); delete it and run `nas measure` again"
        ) from None
