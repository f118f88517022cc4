"""Energy and peak memory as objectives: predicted from the table, where the device tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latency.resources import RESOURCES
from latency.table import LatencyTable
from nas.atomic import read_json
from nas.config import Config
from nas.run import Run
from nas.search import parse_constraints
from nas.stages.prediction import read_rows
from predictors.resources import ResourcePredictor
from search_spaces import TransformerSpace


def wanted_resources(config: Config) -> dict[str, tuple[str, str]]:
    """The objectives and bounds that are resources: workload and resource by name."""
    bounds = parse_constraints(config.search.bounds, config.objectives)
    names = [*config.search.objectives, *(str(bound.objective) for bound in bounds)]
    known = {f"{w}_{resource}": (w, resource) for w in config.workloads for resource in RESOURCES}
    return {name: known[name] for name in names if name in known}


def fit_resources(
    config: Config,
    space: TransformerSpace,
    table: LatencyTable,
    whole: Sequence[Mapping[str, Any]],
) -> dict[str, ResourcePredictor]:
    """A predictor for each resource that is searched for or bounded, by objective.

    Args:
        config: Names them.
        space: The search space of the table.
        table: Rows of all blocks.
        whole: Whole subnets as they stand in `table.json`.

    Raises:
        UserError: The device does not tell one of them.
    """
    found = {}
    for name, (workload, resource) in wanted_resources(config).items():
        told = [
            (space.architecture(subnet["architecture"]), subnet[resource])
            for subnet in whole
            if subnet["workload"] == workload and subnet.get(resource) is not None
        ]
        predictor = ResourcePredictor(space, table, workload, resource)
        found[name] = predictor.fit([arch for arch, _ in told], [value for _, value in told])
    return found


def load_resources(run: Run, space: TransformerSpace) -> dict[str, ResourcePredictor]:
    """As `fit_resources`, from `table.json`.

    Raises:
        UserError: The device does not tell one of them.
    """
    if not wanted_resources(run.config):
        return {}
    data = read_json(run.directory.table)
    return fit_resources(run.config, space, read_rows(data), data["whole"])
