"""What the interactive figures draw, as plain JSON values. Colours and layout are the page's."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from reports import numbers
from reports.axes import Axis, Position, default_axes, identity, objective_value, place
from reports.axes import axes as axes_of
from reports.shapes import describe
from reports.stages import FrontSubnet, Genes, Point, RunData, TrainingStep

Json = dict[str, Any]

MAX_CURVE_POINTS = 1000
_WRAP = 6


def front_figure(data: RunData, layers: int) -> Json:
    """The front along every axis: see `templates/report.js` for how it is drawn.

    Args:
        data: The run.
        layers: Layers of the supernet, for the text of architectures.
    """
    found = axes_of(data)
    x, y = default_axes(found)
    subnets = data.front.subnets
    exported = {identity(subnet.architecture) for subnet in subnets}
    dominated: list[Point] = []
    spare: list[Point] = []
    if data.search is not None:
        on_front = set(data.search.front)
        for index, point in enumerate(data.search.evaluated):
            if identity(point.architecture) not in exported:
                (spare if index in on_front else dominated).append(point)
    references = data.search.references if data.search is not None else []
    return {
        "axes": [{"id": a.id, "label": a.label, "kind": a.kind, "fraction": a.fraction}
                 for a in found],
        "x": x.id,
        "y": y.id,
        "dominated": _points(data, dominated, found, layers),
        "spare": _points(data, spare, found, layers),
        "references": _points(data, references, found, layers),
        "front": _front(data, found, layers),
    }  # fmt: skip


def latency_figure(data: RunData, layers: int) -> list[Json]:
    """Predicted and measured latency of every whole subnet, a series per workload and origin."""
    series = []
    for workload in data.workloads:
        for origin, pairs in latency_pairs(data, workload).items():
            series.append(
                {
                    "workload": plain(workload),
                    "origin": origin,
                    "text": [
                        hover(name, [f"predicted {numbers.significant(p)} ms",
                                     f"measured {numbers.significant(m)} ms", status],
                              genes, layers)
                        for name, genes, p, m, _, _, status in pairs
                    ],
                    "predicted": [pair[2] for pair in pairs],
                    "measured": [pair[3] for pair in pairs],
                    "low": [finite(pair[4]) for pair in pairs],
                    "high": [finite(pair[5]) for pair in pairs],
                }
            )  # fmt: skip
    return [one for one in series if one["predicted"]]


Pair = tuple[str, Genes, float, float, float | None, float | None, str]
"""Name, architecture, predicted, measured, low, high (all in ms), status."""


def latency_pairs(data: RunData, workload: str) -> dict[str, list[Pair]]:
    """Origin ("front" or "correction") to the subnets of a workload with both latencies known."""
    front: list[Pair] = []
    for subnet in data.front.subnets:
        latency = subnet.latencies.get(workload)
        if latency is None:
            continue
        p, found = latency.predicted_ms, latency.measured_ms
        if _positive(p) and _positive(found.median):
            front.append((subnet.name, subnet.architecture, p or 0.0, found.median or 0.0,
                          found.low, found.high, found.status))  # fmt: skip
    whole: list[Pair] = []
    for one in data.table.whole if data.table else ():
        p, m = one.predicted_ms, one.measured_ms
        if one.workload == workload and _positive(p) and _positive(m):
            whole.append(("correction subnet", one.architecture, p or 0.0, m or 0.0,
                          one.low_ms, one.high_ms, one.status))  # fmt: skip
    return {"front": front, "correction": whole}


def training_figure(steps: Sequence[TrainingStep], distillation: object = None) -> Json:
    """Loss over steps, thinned to at most `MAX_CURVE_POINTS` points.

    Args:
        steps: The log.
        distillation: As it was configured; `none` if all learned from the labels.
    """
    stride = max(1, math.ceil(len(steps) / MAX_CURVE_POINTS))
    shown = [*steps[::stride]]
    if steps and shown[-1] is not steps[-1]:
        shown.append(steps[-1])
    return {
        "students": "labels" if distillation == "none" else "distilled",
        "step": [one.step for one in shown],
        "largest": [finite(one.loss_largest) for one in shown],
        "smallest": [finite(one.loss_smallest) for one in shown],
        "random": [finite(one.loss_random) for one in shown],
    }


def finite(value: float | None) -> float | None:
    """None for what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def plain(text: str) -> str:
    """Text that Plotly, which reads a few HTML tags in labels, shows as it is."""
    return escape(text, quote=False)


def hover(name: str, lines: Iterable[str], genes: Genes, layers: int) -> str:
    """Hover text: name, figures, and what the subnet looks like."""
    shape = describe(genes, layers)
    if not any(line.startswith("heads ") for line in shape):
        shape = tuple(
            ", ".join(shape[start : start + _WRAP]) for start in range(0, len(shape), _WRAP)
        )
    return f"<b>{plain(name)}</b><br>" + "<br>".join(plain(x) for x in (*lines, *shape) if x)


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _points(data: RunData, points: Sequence[Point], found: Sequence[Axis], layers: int) -> Json:
    objectives = data.search.objectives if data.search is not None else []
    values = {a.id: [finite(objective_value(objectives, p, a)) for p in points] for a in found}
    shown = [axis for axis in found if axis.id in objectives]
    text = [
        hover(
            point.name or "evaluated",
            (f"{axis.label}: {axis.show(values[axis.id][i])}" for axis in shown),
            point.architecture,
            layers,
        )
        for i, point in enumerate(points)
    ]
    return {"name": [plain(point.name) for point in points], "text": text, "values": values}


def _front(data: RunData, found: Sequence[Axis], layers: int) -> Json:
    subnets = data.front.subnets
    places = {axis.id: [place(data.front, subnet, axis) for subnet in subnets] for axis in found}
    return {
        "name": [plain(subnet.name) for subnet in subnets],
        "text": [
            hover(
                subnet.name,
                (_line(axis, places[axis.id][i]) for axis in found),
                subnet.architecture,
                layers,
            )
            for i, subnet in enumerate(subnets)
        ],
        "ok": [_all_ok(subnet) for subnet in subnets],
        "predicted": {id: [finite(p.predicted) for p in ps] for id, ps in places.items()},
        "measured": {id: [finite(p.measured) for p in ps] for id, ps in places.items()},
        "low": {id: [finite(p.low) for p in ps] for id, ps in places.items()},
        "high": {id: [finite(p.high) for p in ps] for id, ps in places.items()},
    }


def _all_ok(subnet: FrontSubnet) -> bool:
    return all(latency.measured_ms.status == "ok" for latency in subnet.latencies.values())


def _line(axis: Axis, at: Position) -> str:
    if axis.kind == "latency":
        return (
            f"{axis.label}: measured {axis.show(at.measured)}"
            f" [{axis.show(at.low)}, {axis.show(at.high)}], predicted {axis.show(at.predicted)}"
        )
    if at.measured is not None and at.high is not None:
        return f"{axis.label}: {axis.show(at.measured)} ± {axis.show(at.high - at.measured)}"
    return f"{axis.label}: {axis.show(at.measured)}"
