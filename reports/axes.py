"""The axes that a front can be drawn along, and where each subnet lies on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from reports import numbers
from reports.stages import Front, FrontSubnet, Genes, Point, RunData

COSTS = ("macs", "parameters", "size_bytes", "kv_cache_bytes")
_COST_LABELS = {
    "macs": "MACs",
    "parameters": "parameters",
    "size_bytes": "size (bytes)",
    "kv_cache_bytes": "KV cache (bytes)",
}
_QUALITY_LABELS = {"bits_per_byte": "bits per byte", "cross_entropy": "cross-entropy (nats)"}
_RESOURCE_LABELS = {"energy_mj": "energy (mJ)", "peak_memory_bytes": "peak memory (bytes)"}
"""What a device may tell of a call beside its latency; objectives are called WORKLOAD_energy_mj."""
_HIGHER_IS_BETTER = frozenset({"accuracy"})
TEST = "test"
"""Id of the axis of quality on the test split."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis."""

    id: str
    label: str
    kind: str
    """`quality`, `test`, `latency` or `cost`."""
    fraction: bool = False
    """Whether values are shares, shown in percent."""

    def show(self, value: float | None) -> str:
        """A value of this axis as text."""
        if self.kind in ("quality", "test"):
            metric = "error" if self.fraction else ""
            return numbers.metric_value(metric, value)
        if self.kind == "latency" or self.id.endswith("_mj"):
            return numbers.significant(value)
        return numbers.size(value) if self.id.endswith("_bytes") else numbers.count(value)


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a subnet lies on one axis; None where it was never found out."""

    predicted: float | None
    """As the search saw it."""
    measured: float | None
    """As found on the device or the test split; the same as `predicted` for exact figures."""
    low: float | None = None
    high: float | None = None


def axes(data: RunData) -> tuple[Axis, ...]:
    """Objectives first, then the other workloads, the test split, and the costs that are known."""
    front = data.front
    found = [_objective_axis(name, data.workloads) for name in front.objectives]
    for workload in data.workloads:
        if f"{workload}_ms" not in front.objectives:
            found.append(_objective_axis(f"{workload}_ms", data.workloads))
        for resource in _RESOURCE_LABELS:
            told = [s.latencies[workload] for s in front.subnets if workload in s.latencies]
            name = f"{workload}_{resource}"
            if name not in front.objectives and any(getattr(one, resource) for one in told):
                found.append(_objective_axis(name, data.workloads))
    if any(subnet.quality.test is not None for subnet in front.subnets):
        found.append(_quality_axis(TEST, metric_on_test(front), "test"))
    for name in COSTS:
        values = [getattr(subnet, name) for subnet in front.subnets]
        if name not in front.objectives and any(values):
            found.append(cost_axis(name))
    return tuple(found)


def cost_axis(name: str) -> Axis:
    """The axis of an analytic cost, one of `COSTS`."""
    return Axis(id=name, label=_COST_LABELS[name], kind="cost")


def default_axes(found: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Latency across, quality up, as far as there are such axes."""
    x = next((axis for axis in found if axis.kind == "latency"), found[0])
    y = next((axis for axis in found if axis.kind == "quality"), None)
    return x, y or next((axis for axis in found if axis.id != x.id), x)


def metric_on_test(front: Front) -> str:
    """The metric of the test axis: that of the file, turned to be minimised where that is asked."""
    metric = front.subnets[0].quality.metric if front.subnets else ""
    return "error" if metric == "accuracy" and "error" in front.objectives else metric


def higher_is_better(metric: str) -> bool:
    """Whether larger values of a metric are the better ones."""
    return metric in _HIGHER_IS_BETTER


def place(front: Front, subnet: FrontSubnet, axis: Axis) -> Position:
    """Where a subnet of the front lies on an axis."""
    if axis.kind == "latency":
        latency = subnet.latencies.get(axis.id.removesuffix("_ms"))
        if latency is None:
            return Position(predicted=None, measured=None)
        found = latency.measured_ms
        return Position(
            predicted=latency.predicted_ms, measured=found.median, low=found.low, high=found.high
        )
    if axis.kind == "test":
        value = subnet.quality.test
        if value is not None and metric_on_test(front) != subnet.quality.metric:
            value = 1 - value
        error = subnet.quality.test_se
        if value is None or error is None:
            return Position(predicted=value, measured=value)
        return Position(predicted=value, measured=value, low=value - error, high=value + error)
    value = _searched(front, subnet, axis.id)
    for resource in _RESOURCE_LABELS:
        latency = subnet.latencies.get(axis.id.removesuffix(f"_{resource}"))
        if latency is not None and axis.id.endswith(f"_{resource}"):
            low, high = getattr(latency, f"{resource}_interval") or (None, None)
            measured = getattr(latency, resource)
            return Position(predicted=value, measured=measured, low=low, high=high)
    return Position(predicted=value, measured=value)


def objective_value(objectives: Sequence[str], point: Point, axis: Axis) -> float | None:
    """Where an evaluated architecture lies on an axis; None where that is no objective."""
    return point.values[objectives.index(axis.id)] if axis.id in objectives else None


def identity(genes: Genes) -> str:
    """Equal for equal architectures."""
    return json.dumps(genes, sort_keys=True)


def best_by_quality(front: Front) -> FrontSubnet | None:
    """The subnet with the best quality on validation: chosen before the test split is looked at."""
    known = [s for s in front.subnets if s.quality.validation is not None]
    if not known:
        return None
    sign = -1 if higher_is_better(known[0].quality.metric) else 1
    return min(known, key=lambda subnet: sign * (subnet.quality.validation or 0.0))


def _objective_axis(name: str, workloads: Sequence[str]) -> Axis:
    if name.removesuffix("_ms") in workloads and name.endswith("_ms"):
        workload = name.removesuffix("_ms")
        label = "latency (ms)" if workload == "latency" else f"{workload} latency (ms)"
        return Axis(id=name, label=label, kind="latency")
    if name in COSTS:
        return cost_axis(name)
    for resource, label in _RESOURCE_LABELS.items():
        workload = name.removesuffix(f"_{resource}")
        if workload != name and workload in workloads:
            prefix = "" if workload == "latency" else f"{workload} "
            return Axis(id=name, label=f"{prefix}{label}", kind="cost")
    return _quality_axis(name, name, "quality")


def _quality_axis(id: str, metric: str, kind: str) -> Axis:
    split = "test" if kind == "test" else "validation"
    label = f"{_QUALITY_LABELS.get(metric, metric)} ({split})"
    return Axis(id=id, label=label, kind=kind, fraction=numbers.is_fraction(metric))


def _searched(front: Front, subnet: FrontSubnet, name: str) -> float | None:
    if name in COSTS:
        value: int | None = getattr(subnet, name)
        return value
    if name in front.objectives and subnet.values:
        return subnet.values[front.objectives.index(name)]
    validation = subnet.quality.validation
    if name == subnet.quality.metric:
        return validation
    turned = name == "error" and subnet.quality.metric == "accuracy" and validation is not None
    return 1 - validation if turned and validation is not None else None
