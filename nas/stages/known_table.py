"""The latency table that a run has, as predictors."""

from __future__ import annotations

from nas.atomic import read_json
from nas.run import Run
from nas.stages.device_lab import DeviceLab
from nas.stages.measure import measure_device
from nas.stages.prediction import Prediction, read_rows
from predictors.protocol import ArchitecturePredictor
from search_spaces import TransformerSpace, UserError
from search_spaces.schemes import later_versions


def load_predictors(run: Run, space: TransformerSpace) -> dict[str, ArchitecturePredictor]:
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
            ("version of a scheme", data.get("schemes", {}), later_versions(space.precision)),
            ("device", data["device"]["name"], run.device),
            ("workload", data["workloads"], workloads),
            ("measuring mode", data["mode"], run.config.latency.mode),
            ("predictor", data.get("predictor", "auto"), run.config.latency.predictor),
        ):
            if found != wanted:
                raise UserError(
                    f"{path} is of another {what} ({found}, not {wanted}); run `nas measure` again"
                )
        table = read_rows(data)
        return {
            name: Prediction(run, space, table, name, run.config.latency.predictor).read(
                data["corrections"][name], data["whole"]
            )
            for name in workloads
        }
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path} is damaged ({reason}); delete it and run `nas measure` again"
        ) from None
