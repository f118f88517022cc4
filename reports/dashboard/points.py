"""One run on one device as the chooser draws it: axes, subnets, and everything evaluated."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reports.axes import (
    COSTS,
    Axis,
    axes,
    cost_axis,
    higher_is_better,
    identity,
    metric_on_test,
    objective_value,
    place,
)
from reports.dashboard.command import Commands
from reports.dashboard.files import exported_files
from reports.figures import finite
from reports.policies import squares
from reports.sections import notices
from reports.sentences import compute_plans
from reports.shapes import describe, ends_of, layers_of, limits
from reports.stages import FrontSubnet, Genes, Point, RunData
from search_spaces import Architecture, TransformerSpace, UserError, Workload, space_from_json

Json = dict[str, Any]


def chooser(directory: Path, data: RunData, run: str, device: str | None) -> Json:
    """What a page needs to choose a subnet of a run.

    Args:
        directory: The run directory.
        data: Its stage files, of one device.
        run: The run directory, as it is typed.
        device: Name of the device, if commands have to name it.

    Returns:
        `axes`; `quality`, the id of the axis that the best is chosen by; `limits`; `notices`; and
        `points`, each with `kind` (`front`, `spare`, `evaluated` or `reference`), `values` (by
        axis `[predicted, measured, low, high]`) and what it looks like.
    """
    search, front = data.search, data.front
    costs = _Costs(data)
    found = list(axes(data))
    known = {axis.id for axis in found}
    found += [cost_axis(name) for name in COSTS if costs.known(name) and name not in known]
    exported = {identity(subnet.architecture) for subnet in front.subnets}
    on_front = set(search.front) if search else set()
    rest = [
        ("spare" if index in on_front else "evaluated", replace(point, name=f"e{index:03d}"))
        for index, point in enumerate(search.evaluated if search else ())
        if identity(point.architecture) not in exported
    ]
    rest += [("reference", point) for point in (search.references if search else ())]
    most = limits([s.architecture for s in front.subnets] + [p.architecture for _, p in rest])
    commands = Commands(data, run, device)
    points = []
    for subnet in front.subnets:
        points.append(
            {
                "name": subnet.name,
                "kind": "front",
                "values": _values_of_front(data, subnet, found),
                "status": _status(subnet),
                "files": exported_files(directory, subnet, front.script),
                "command": commands.of(subnet.architecture, f"{subnet.name}.onnx"),
                "plans": list(compute_plans(subnet)),
                **_look(subnet.architecture, most.layers),
            }
        )
    for kind, point in rest:
        spare = kind == "spare"
        points.append(
            {
                "name": point.name,
                "kind": kind,
                "values": _values_of_point(data, point, found, costs),
                "command": commands.of(point.architecture, "best.onnx") if spare else None,
                **_look(point.architecture, most.layers),
            }
        )
    quality = next((axis for axis in found if axis.kind == "quality"), None)
    return {
        "axes": [_axis(data, axis) for axis in found],
        "quality": _id(data, quality) if quality else None,
        "objectives": list(front.objectives),
        "bounds": list(search.bounds) if search else [],
        "limits": asdict(most),
        "notices": notices(data),
        "points": points,
    }


class _Costs:
    """Analytic costs of what was evaluated, where the space is known."""

    def __init__(self, data: RunData) -> None:
        self._space = _space(data)
        # Those of the workload that asks the most, as the search has them.
        calls = data.config.get("workloads")
        try:
            every = [Workload(**call) for call in calls.values()] if isinstance(calls, dict) else []
        except (TypeError, AttributeError, UserError):
            every = []
        self._workload = max(every, key=lambda call: call.tokens) if every else None
        self._found: dict[str, Mapping[str, float]] = {}
        self._names = self._known(data)

    def known(self, name: str) -> bool:
        """Whether a cost is told."""
        return name in self._names

    def of(self, genes: Genes) -> Mapping[str, float]:
        """Costs by name; empty where they are not known."""
        key = identity(genes)
        if key not in self._found:
            self._found[key] = self._cost(genes)
        return self._found[key]

    def _cost(self, genes: Genes) -> Mapping[str, float]:
        if self._space is None:
            return {}
        try:
            arch: Architecture = self._space.architecture(genes)
            cost = self._space.cost(arch, self._workload)
        except (UserError, ValueError, TypeError):
            return {}  # of another space than the configuration says
        return {name: float(getattr(cost, name)) for name in COSTS}

    def _known(self, data: RunData) -> frozenset[str]:
        evaluated = data.search.evaluated if data.search else ()
        return frozenset(
            name for p in evaluated[:1] for name, v in self.of(p.architecture).items() if v
        )


def _space(data: RunData) -> TransformerSpace | None:
    """The space of a run with the policies of its configuration."""
    if data.supernet is None or not data.supernet.space:
        return None
    settings = data.config.get("space")
    settings = settings if isinstance(settings, dict) else {}
    policies = {
        name: settings[name] for name in ("precision", "precision_ends") if settings.get(name)
    }
    try:
        return space_from_json({**data.supernet.space, **policies})
    except (UserError, ValueError, TypeError):
        return None


def _id(data: RunData, axis: Axis) -> str:
    """Of several runs: the test split has another metric in each."""
    return f"test_{metric_on_test(data.front)}" if axis.kind == "test" else axis.id


def _axis(data: RunData, axis: Axis) -> Json:
    metric = metric_on_test(data.front) if axis.kind == "test" else axis.id
    return {
        "id": _id(data, axis),
        "label": axis.label,
        "kind": axis.kind,
        "fraction": axis.fraction,
        "bytes": axis.id.endswith("_bytes"),
        "higher": higher_is_better(metric),
        "objective": axis.id in data.front.objectives,
    }


def _values_of_front(data: RunData, subnet: FrontSubnet, found: list[Axis]) -> Json:
    values = {}
    for axis in found:
        at = place(data.front, subnet, axis)
        four = [finite(v) for v in (at.predicted, at.measured, at.low, at.high)]
        if any(value is not None for value in four):
            values[_id(data, axis)] = four
    return values


def _values_of_point(data: RunData, point: Point, found: list[Axis], costs: _Costs) -> Json:
    objectives = data.search.objectives if data.search else []
    values = {}
    for axis in found:
        exact = axis.id in COSTS
        value = objective_value(objectives, point, axis)
        value = costs.of(point.architecture).get(axis.id) if value is None and exact else value
        if finite(value) is not None:
            values[axis.id] = [value, value if exact or axis.kind == "quality" else None]
    return values


def _status(subnet: FrontSubnet) -> str:
    """The first that is not ok."""
    found = [latency.measured_ms.status for latency in subnet.latencies.values()]
    return next((status for status in found if status != "ok"), "ok")


def _look(genes: Genes, layers: int) -> Json:
    """What a subnet looks like: heads and FFN width of each layer, 0 in a dropped one."""
    shape = layers_of(genes, layers)
    found: Json = {
        "embed": genes.get("embed"),
        "heads": [layer.heads for layer in shape],
        "ffn": [layer.ffn for layer in shape],
        "lines": list(describe(genes, layers)),
    }
    if policy := squares(genes):
        found["policy"] = [asdict(square) for square in policy]
    if ends := ends_of(genes):
        found["ends"] = ", ".join(ends)
    return found
