"""Several fronts side by side: of several devices, of several runs, or of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.search.pareto import hypervolume, non_dominated
from reports.axes import Axis, axes, identity, place
from reports.data import load_run
from reports.stages import Genes, RunData
from reports.svg_plot import known
from search_spaces.errors import UserError
from search_spaces.transformer import fixed_facts

MARGIN = 0.1
"""The corner lies beyond the worst values by this share of their range, so that the ends of a front
span some volume too."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of a subnet under one workload on one device, in ms."""

    ms: float
    measured: bool
    """Or predicted from the latency table."""


@dataclass(frozen=True, kw_only=True)
class ComparedFront:
    """One front, and how it does beside the others."""

    label: str
    data: RunData
    points: Mapping[str, tuple[float, ...]]
    """Subnets by name, and where they lie in the shared objectives."""
    hypervolume: float | None
    """Share of the box between the best values of all fronts and the corner; None without one."""
    leading: int | None
    """How many of its subnets none of any front dominates."""


@dataclass(frozen=True, kw_only=True)
class ComparedSubnet:
    """An architecture of which two runs at least know something."""

    architecture: Genes
    names: tuple[str | None, ...]
    """Its name on each front; None where it is not on it."""
    latencies: Mapping[str, tuple[Latency | None, ...]]
    """By workload, on each front's device."""

    @property
    def is_on_several(self) -> bool:
        """Whether it is on more than one front."""
        return sum(name is not None for name in self.names) > 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `nas compare` tells."""

    fronts: tuple[ComparedFront, ...]
    shared: tuple[Axis, ...]
    """Objectives that all fronts have, of one unit and judged on the same."""
    corner: tuple[float, ...]
    """What the hypervolume reaches to, in the shared objectives; empty if they are too few."""
    subnets: tuple[ComparedSubnet, ...]
    notes: tuple[str, ...]
    """What is not compared and why, and what to mind."""


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare fronts.

    Args:
        paths: Run directories, which stand for the fronts of all their devices; or `front.json` or
            `front.DEVICE.json` of some, which stand for themselves.

    Raises:
        UserError: There are less than two fronts, a file is missing or broken, or nothing of the
            fronts can be compared.
    """
    files = list({file.resolve(): file for path in paths for file in _front_files(path)}.values())
    if len(files) < 2:
        raise UserError(
            f"{', '.join(map(str, paths))}: one front only; name another run, or run this one "
            "for a second device with --device"
        )
    loaded = [load_run(file.parent, file.stem.partition(".")[2]) for file in files]
    labels = [
        f"{file.parent} on {data.front.device.name}"
        for file, data in zip(files, loaded, strict=True)
    ]
    return compare_loaded(labels, loaded)


def compare_loaded(labels: Sequence[str], loaded: Sequence[RunData]) -> Comparison:
    """Compare fronts that were read already.

    Args:
        labels: What each is called.
        loaded: As many runs, seen from one device each.

    Raises:
        UserError: Nothing of the fronts can be compared.
    """
    shared, notes = _shared(labels, loaded)
    subnets = _subnets(loaded, [w for w in _workloads(loaded) if _is_one(_calls(loaded, w))])
    if len(shared) < 2 and not subnets:
        raise UserError(
            f"{', '.join(labels)} cannot be compared: "
            + "; ".join([*notes, "and no architecture is known to two of them"])
        )
    points, partly = [], []
    for label, data in zip(labels, loaded, strict=True):
        points.append(_points(data, shared))
        partly += [
            f"{label} was not measured: its {axis.label} is predicted."
            for axis in shared
            if data.front.subnets and not _is_measured(data, axis)
        ]
        every = len(data.front.subnets)
        if left := every - len(points[-1]):
            partly.append(f"{label}: {left} of {every} subnets lack a figure, and are left out.")
    corner, volumes, leading = _judge(points, len(shared))
    return Comparison(
        fronts=tuple(
            ComparedFront(label=label, data=data, points=at, hypervolume=volume, leading=lead)
            for label, data, at, volume, lead in zip(
                labels, loaded, points, volumes, leading, strict=True
            )
        ),
        shared=shared,
        corner=corner,
        subnets=subnets,
        notes=(*(f"{note}." for note in notes), *partly, *_weights(loaded)),
    )


def _front_files(path: Path) -> list[Path]:
    if path.is_file() and path.name.startswith("front.") and path.suffix == ".json":
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} is no run directory and no front.json; name one of these")
    found = [path / "front.json", *sorted(path.glob("front.*.json"))]
    there = [file for file in found if file.exists()]
    if not there:
        raise UserError(f"{path} has no front.json; nas run {path} makes it")
    return there


def _shared(labels: Sequence[str], loaded: Sequence[RunData]) -> tuple[tuple[Axis, ...], list[str]]:
    """The objectives that can be compared, and why others cannot."""
    kept, notes = [], []
    names = dict.fromkeys(name for data in loaded for name in data.front.objectives)
    for name in names:
        of = [name in data.front.objectives for data in loaded]
        if not all(of):
            without = [label for label, there in zip(labels, of, strict=True) if not there]
            notes.append(f"{name} is not compared: it is no objective of {', '.join(without)}")
            continue
        axis = next(axis for axis in axes(loaded[0]) if axis.id == name)
        timed = [workload for workload in _workloads(loaded) if name.startswith(f"{workload}_")]
        if not all(_is_one(_calls(loaded, workload)) for workload in timed):
            notes.append(f"{name} is not compared: the runs time different calls under this name")
        elif axis.kind == "quality" and not _is_one([_judged_on(data) for data in loaded]):
            notes.append(
                f"{name} is not compared: the runs judge it on different validation data, see "
                "splits.json of each"
            )
        else:
            kept.append(axis)
    return tuple(kept), notes


def _is_one(values: Sequence[Any]) -> bool:
    """Whether all values that are known are equal."""
    found = [value for value in values if value is not None]
    return all(value == found[0] for value in found)


def _calls(loaded: Sequence[RunData], workload: str) -> list[Any]:
    return [data.table.workloads.get(workload) if data.table else None for data in loaded]


def _judged_on(data: RunData) -> Any:
    digests = (data.splits or {}).get("index_sha256")
    return digests.get("validation") if isinstance(digests, dict) else None


def _workloads(loaded: Sequence[RunData]) -> dict[str, None]:
    return dict.fromkeys(name for data in loaded for name in data.workloads)


def _is_measured(data: RunData, axis: Axis) -> bool:
    return any(place(data.front, one, axis).measured is not None for one in data.front.subnets)


def _points(data: RunData, shared: Sequence[Axis]) -> dict[str, tuple[float, ...]]:
    """Subnets in the shared objectives: as measured, or as predicted if none was measured."""
    measured = [_is_measured(data, axis) for axis in shared]
    found = {}
    for subnet in data.front.subnets:
        at = [place(data.front, subnet, axis) for axis in shared]
        values = [a.measured if m else a.predicted for a, m in zip(at, measured, strict=True)]
        if known(*values):
            found[subnet.name] = tuple(value for value in values if value is not None)
    return found


def _judge(
    points: Sequence[Mapping[str, tuple[float, ...]]], objectives: int
) -> tuple[tuple[float, ...], Sequence[float | None], Sequence[int | None]]:
    """The common corner, and each front's hypervolume and number of leading subnets."""
    owner = [index for index, at in enumerate(points) for _ in at]
    if objectives < 2 or not owner:
        return (), [None] * len(points), [None] * len(points)
    values = np.array([value for at in points for value in at.values()])
    best, worst = values.min(axis=0), values.max(axis=0)
    corner = worst + MARGIN * (worst - best)
    volumes = [
        hypervolume(np.reshape(list(at.values()), (-1, objectives)), ideal=best, reference=corner)
        for at in points
    ]
    leading = np.bincount(np.array(owner)[non_dominated(values)], minlength=len(points))
    return tuple(corner.tolist()), volumes, leading.tolist()


def _subnets(loaded: Sequence[RunData], workloads: Sequence[str]) -> tuple[ComparedSubnet, ...]:
    """What two runs at least know of, the fastest first."""
    named, latencies = [], []
    genes: dict[tuple[int, str], Genes] = {}
    for data, network in zip(loaded, _networks(loaded), strict=True):
        names: dict[tuple[int, str], str] = {}
        times = {(network, one): ms for one, ms in _predicted(data, workloads).items()}
        for subnet in data.front.subnets:
            key = (network, identity(subnet.architecture))
            genes[key], names[key], times[key] = subnet.architecture, subnet.name, {}
            for workload in workloads:
                found = subnet.latencies.get(workload)
                ms = found and (found.measured_ms.median or found.predicted_ms)
                if found and ms:
                    measured = found.measured_ms.median is not None
                    times[key][workload] = Latency(ms=ms, measured=measured)
        named.append(names)
        latencies.append(times)
    rows = [
        ComparedSubnet(
            architecture=genes[key],
            names=tuple(names.get(key) for names in named),
            latencies={
                workload: tuple(times.get(key, {}).get(workload) for times in latencies)
                for workload in workloads
            },
        )
        for key in genes
        if sum(key in times for times in latencies) > 1
    ]
    return tuple(sorted(rows, key=_speed))


def _predicted(data: RunData, workloads: Sequence[str]) -> dict[str, dict[str, Latency]]:
    """Predicted latencies by workload of what the run's search evaluated, by identity."""
    found = {}
    for point in data.search.evaluated if data.search else ():
        values = dict(zip(data.search.objectives, point.values, strict=True)) if data.search else {}
        found[identity(point.architecture)] = {
            workload: Latency(ms=ms, measured=False)
            for workload in workloads
            if (ms := values.get(f"{workload}_ms")) is not None
        }
    return found


def _speed(subnet: ComparedSubnet) -> float:
    found = [one.ms for times in subnet.latencies.values() for one in times if one is not None]
    return found[0] if found else 0.0


def _networks(loaded: Sequence[RunData]) -> list[int]:
    """Equal numbers where equal genes are one network; what is not known is as the first."""
    found = [_network(data) for data in loaded]
    told = [one for one in found if one is not None]
    return [told.index(one) if one is not None else 0 for one in found]


def _network(data: RunData) -> dict[str, object] | None:
    """What all subnets of a run have in common; None where that is not known."""
    return (fixed_facts(data.supernet.space) or None) if data.supernet else None


def _weights(loaded: Sequence[RunData]) -> list[str]:
    """Whether one architecture is one subnet, and has one quality, in all runs."""
    networks = [found for data in loaded if (found := _network(data)) is not None]
    names = dict.fromkeys(name for one in networks for name in one)
    if others := [name for name in names if not _is_one([str(one.get(name)) for one in networks])]:
        return [
            f"The runs have networks of different {', '.join(others)}: the same architecture is "
            "another subnet there."
        ]
    if _is_one([data.front.supernet or None for data in loaded]):
        return []
    return ["The runs have different supernets: the same architecture has other weights in each."]
