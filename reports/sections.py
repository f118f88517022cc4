"""The tables and texts of the report's sections, as values that the template only lays out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from predictors.accuracy import kendall_tau, mape
from reports import numbers, sentences
from reports.axes import best_by_quality, identity
from reports.figures import latency_pairs
from reports.policies import Square, squares
from reports.shapes import Layer, Limits, describe, ends_of, layers_of
from reports.stages import (
    Front,
    FrontSubnet,
    Genes,
    Measured,
    RunData,
    Search,
    Supernet,
    WorkloadLatency,
)
from reports.tables import Cell, Column

_LIST_SHOWN = 24
_RESOURCES = {"energy_mj": "energy mJ", "peak_memory_bytes": "peak memory"}
"""Columns of what a subnet takes beside time, where the device tells it."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure of the summary."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What one subnet looks like."""

    name: str
    note: str
    embed: str
    layers: tuple[Layer, ...]
    lines: tuple[str, ...]
    """The same in words."""
    policy: tuple[Square, ...] = ()
    """The schemes of its linear layers; empty where there is no choice."""
    ends: str = ""
    """The schemes of stem and head, where they have any."""
    plans: tuple[str, ...] = ()
    """Where the runtime means to run it, where it tells."""
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Predicted against measured latency of one set of subnets."""

    workload: str
    origin: str
    n: int
    mape: str
    worst: str
    tau: str
    not_ok: int


def tiles(data: RunData) -> list[Tile]:
    """The summary: task, device, subnets, speed, quality."""
    front = data.front
    task = data.config.get("task")
    kind = str(task.get("kind", "")) if isinstance(task, dict) else ""
    source = str(task.get("data", "")) if isinstance(task, dict) else ""
    threads = front.device.threads
    runtime = front.device.backend + (
        f", {threads} thread{'s' * (threads != 1)}" if threads else ""
    )
    searched = f"out of {len(data.search.evaluated)} evaluated" if data.search else ""
    found = [
        Tile(label="Task", value=kind.replace("-", " ") or numbers.MISSING, note=source),
        Tile(label="Device", value=front.device.name, note=runtime),
        Tile(label="Subnets on the front", value=_on_front(data), note=searched),
    ]
    found += [tile for name in data.workloads if (tile := _speed(front, name))]
    best = best_by_quality(front)
    if best is not None:
        quality = best.quality
        metric = quality.metric.replace("_", " ")
        note = f"{metric} on test, {best.name} (best on validation)"
        value = numbers.with_error(quality.metric, quality.test, quality.test_se)
        if quality.test is None:
            note = f"{metric} on validation, {best.name}; no test figure"
            value = numbers.metric_value(quality.metric, quality.validation)
        found.append(Tile(label="Best quality", value=value, note=note))
    return found


def _on_front(data: RunData) -> str:
    if data.front.exported:
        return str(len(data.front.subnets))
    return str(len(data.search.front)) if data.search else numbers.MISSING


def front_table(data: RunData) -> tuple[list[Column], list[list[Cell]]]:
    """The front's subnets, a row each."""
    cached = any(subnet.kv_cache_bytes for subnet in data.front.subnets)
    metric = data.front.subnets[0].quality.metric if data.front.subnets else "quality"
    shown = metric.replace("_", " ")
    told = {workload: _told(data.front, workload) for workload in data.workloads}
    columns = [Column(label="Name", numeric=False)]
    columns += [Column(label=f"{shown}, validation"), Column(label=f"{shown}, test ± s.e.")]
    for workload in data.workloads:
        columns += [
            Column(label=f"{workload}: predicted ms"),
            Column(label=f"{workload}: measured ms"),
        ]
        columns += [Column(label=f"{workload}: {_RESOURCES[one]}") for one in told[workload]]
    columns += [Column(label="MACs"), Column(label="Parameters"), Column(label="Size")]
    columns += [Column(label="KV cache")] if cached else []
    columns += [Column(label="Status", numeric=False), Column(label="Export", numeric=False)]
    return columns, [_front_row(subnet, told, cached) for subnet in data.front.subnets]


def cards(data: RunData, most: Limits) -> list[Card]:
    """Pictures of the front's subnets, after those of the largest for comparison."""
    found = []
    for point in data.search.references if data.search else ():
        if point.name == "largest":
            card = _card("largest", "reference", point.architecture, most)
            found.append(replace(card, reference=True))
    for subnet in data.front.subnets:
        latency = next(iter(subnet.latencies.values()))
        time = latency.measured_ms.median or latency.predicted_ms
        note = (
            f"{numbers.significant(time)} ms · "
            f"{numbers.metric_value(subnet.quality.metric, subnet.quality.validation)}"
        )
        card = _card(subnet.name, note, subnet.architecture, most)
        found.append(replace(card, plans=tuple(sentences.compute_plans(subnet))))
    return found


def accuracy(data: RunData) -> list[Accuracy]:
    """MAPE and Kendall's tau per workload, for the front and for the subnets of the correction."""
    found = []
    for workload in data.workloads:
        for origin, pairs in latency_pairs(data, workload).items():
            if not pairs:
                continue
            p, m = [pair[2] for pair in pairs], [pair[3] for pair in pairs]
            tau = kendall_tau(p, m)
            found.append(
                Accuracy(
                    workload=workload,
                    origin=origin,
                    n=len(pairs),
                    mape=numbers.percent(mape(p, m)),
                    worst=numbers.percent(max(abs(a - b) / b for a, b in zip(p, m, strict=True))),
                    tau=numbers.MISSING if math.isnan(tau) else f"{tau:.3f}",
                    not_ok=sum(pair[6] != "ok" for pair in pairs),
                )
            )
    return found


def sanity_table(supernet: Supernet) -> tuple[list[Column], list[list[Cell]]]:
    """Quality of uniform subnets by size; a metric and its standard error share a column."""
    names = dict.fromkeys(name for row in supernet.sanity for name in row.metrics)
    metrics = [name for name in names if not name.endswith("_se")]
    columns = [
        Column(label="Name", numeric=False),
        Column(label="Parameters"),
        Column(label="MACs"),
    ]
    columns += [Column(label=name.replace("_", " ")) for name in metrics]
    rows = []
    for row in supernet.sanity:
        cells = [Cell(text=row.name)]
        cells.append(Cell(text=numbers.count(row.parameters), sort=row.parameters))
        cells.append(Cell(text=numbers.count(row.macs), sort=row.macs))
        for name in metrics:
            value, error = row.metrics.get(name), row.metrics.get(f"{name}_se")
            text = numbers.with_error(name, value, error)
            cells.append(Cell(text=numbers.count(value) if name == "n" else text, sort=value))
        rows.append(cells)
    return columns, rows


def latency_table(data: RunData) -> tuple[list[Column], list[list[Cell]]]:
    """Every row of the latency table."""
    columns = [Column(label=name, numeric=False) for name in ("Workload", "Kind", "Widths")]
    columns += [Column(label=name) for name in ("Latency (ms)", "95 % interval (ms)", "Sessions")]
    columns += [Column(label="Status", numeric=False)]
    rows = []
    for row in data.table.rows if data.table else ():
        widths = ", ".join(f"{name} {value}" for name, value in row.widths.items())
        half = None if row.low_ms is None or row.high_ms is None else row.high_ms - row.low_ms
        rows.append(
            [
                Cell(text=row.workload),
                Cell(text=row.kind),
                Cell(text=widths),
                Cell(text=numbers.significant(row.latency_ms), sort=row.latency_ms),
                Cell(text=_interval(row.low_ms, row.high_ms), sort=half),
                Cell(text=str(row.sessions), sort=row.sessions),
                _status(row.status),
            ]
        )
    return columns, rows


def latency_lines(data: RunData) -> list[tuple[str, list[str]]]:
    """Each workload of the latency table, and its parts: load, predictor, interpolation."""
    table = data.table
    if table is None:
        return []
    found = []
    for name, workload in table.workloads.items():
        fit = table.corrections.get(name, {})
        parts = [
            ", ".join(f"{key} {value}" for key, value in flat(workload)),
            sentences.predictor(fit),
            "; ".join(f"{key} {value}" for key, value in flat(sentences.rest(fit))),
            *sentences.interpolation(table.interpolation, name),
        ]
        found.append((name, [part for part in parts if part]))
    return found


def notices(data: RunData) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if not data.front.exported:
        found.append(f"This run is not finished: {next_stage(data)}, or nas run does the rest.")
    elif data.search is not None and is_older(data.front, data.search):
        found.append(
            "The search was made anew since these subnets were exported: nas export exports and "
            "measures those that it found."
        )
    failed = [s.name for s in data.front.subnets if _worst(s).median is None]
    shaky = [
        s.name
        for s in data.front.subnets
        if s.name not in failed and any(x.measured_ms.status != "ok" for x in s.latencies.values())
    ]
    hot = [
        s.name
        for s in data.front.subnets
        if any(x.measured_ms.hot_sessions for x in s.latencies.values())
    ]
    if hot:
        found.append(
            f"Measured while the device was hot or held itself back: {', '.join(hot)}. "
            "Cool it, see to its power supply, and measure again."
        )
    if failed:
        found.append(
            f"Not measured on the device: {', '.join(failed)}. Only predictions are shown."
        )
    if shaky:
        found.append(
            f"Measured, but not repeatable within the protocol's limit: {', '.join(shaky)}. "
            "Drawn as open diamonds."
        )
    return found


def next_stage(data: RunData) -> str:
    """What comes next in a run whose front was not exported."""
    if data.supernet is None:
        return "nas train goes on with the training"
    if data.table is None:
        return "nas measure makes the latency table"
    if data.search is None:
        return "nas search comes next"
    if data.search.finished:
        return "nas export comes next"
    count = len(data.search.evaluated)
    found = "what is shown is the best of these" if data.search.front else "none within the bounds"
    return f"{count} subnets are evaluated, {found} so far, and nas search goes on"


def is_older(front: Front, search: Search) -> bool:
    """Whether a front was exported from another search than this one."""
    exported = [identity(subnet.architecture) for subnet in front.subnets]
    selected = [identity(search.evaluated[index].architecture) for index in search.selected]
    return bool(selected) and sorted(exported) != sorted(selected)


def flat(value: Mapping[str, Any] | None, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted keys and text, long lists cut."""
    for key, item in (value or {}).items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from flat(item, f"{name}.")
        elif isinstance(item, list):
            shown = ", ".join(str(one) for one in item[:_LIST_SHOWN])
            more = f", … ({len(item)} in all)" if len(item) > _LIST_SHOWN else ""
            yield name, shown + more
        elif item is not None:
            yield name, str(item)
        else:
            yield name, numbers.MISSING


def _speed(front: Front, workload: str) -> Tile | None:
    found = [
        s.latencies[workload].measured_ms.median for s in front.subnets if workload in s.latencies
    ]
    times = [value for value in found if value]
    if not times:
        return None
    low, high = min(times), max(times)
    label = "Measured latency" if workload == "latency" else f"Measured {workload}"
    if len(times) == 1:
        return Tile(label=label, value=f"{numbers.significant(low)} ms", note="of one subnet")
    value = f"{numbers.significant(low)} {numbers.MISSING} {numbers.significant(high)} ms"
    return Tile(label=label, value=value, note=f"slowest {high / low:.1f} times the fastest")


def _told(front: Front, workload: str) -> list[str]:
    """The resources that the device tells under a workload, of some subnet at least."""
    found = [s.latencies[workload] for s in front.subnets if workload in s.latencies]
    return [name for name in _RESOURCES if any(getattr(one, name) is not None for one in found)]


def _resource(latency: WorkloadLatency | None, name: str) -> Cell:
    value = getattr(latency, name, None)
    shown = numbers.size if name == "peak_memory_bytes" else numbers.significant
    text, ends = shown(value), getattr(latency, f"{name}_interval", None)
    if ends is not None and len(ends) == 2:
        text += f" [{shown(ends[0])}, {shown(ends[1])}]"
    return Cell(text=text, sort=value)


def _front_row(subnet: FrontSubnet, told: Mapping[str, Sequence[str]], cached: bool) -> list[Cell]:
    quality = subnet.quality
    cells = [
        Cell(text=subnet.name),
        Cell(
            text=numbers.metric_value(quality.metric, quality.validation), sort=quality.validation
        ),
        Cell(
            text=numbers.with_error(quality.metric, quality.test, quality.test_se),
            sort=quality.test,
        ),
    ]
    for workload, resources in told.items():
        latency = subnet.latencies.get(workload)
        predicted = latency.predicted_ms if latency else None
        found = latency.measured_ms if latency else Measured(status="missing")
        cells.append(Cell(text=numbers.significant(predicted), sort=predicted))
        text = numbers.significant(found.median)
        if found.low is not None and found.high is not None:
            text += f" [{_interval(found.low, found.high)}]"
        cells.append(Cell(text=text, sort=found.median))
        cells += [_resource(latency, name) for name in resources]
    cells += [
        Cell(text=numbers.count(subnet.macs), sort=subnet.macs),
        Cell(text=numbers.count(subnet.parameters), sort=subnet.parameters),
        Cell(text=numbers.size(subnet.size_bytes), sort=subnet.size_bytes),
    ]
    if cached:
        cells.append(Cell(text=numbers.size(subnet.kv_cache_bytes), sort=subnet.kv_cache_bytes))
    cells.append(_status(_worst(subnet).status))
    return [*cells, Cell(text=subnet.export or numbers.MISSING, tone="code" * bool(subnet.export))]


def _worst(subnet: FrontSubnet) -> Measured:
    found = [latency.measured_ms for latency in subnet.latencies.values()]
    return min(found, key=lambda one: (one.median is not None, one.status == "ok"))


def _status(status: str) -> Cell:
    return Cell(text=status, tone="" if status in ("ok", "interpolated") else "bad")


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return numbers.MISSING
    return f"{numbers.significant(low)}, {numbers.significant(high)}"


def _card(name: str, note: str, genes: Genes, most: Limits) -> Card:
    return Card(
        name=name,
        note=note,
        embed=str(genes.get("embed", "")),
        layers=layers_of(genes, most.layers),
        lines=describe(genes, most.layers),
        policy=squares(genes),
        ends=", ".join(ends_of(genes)),
    )
