"""What the fronts of a comparison are worth, as measured: latencies, files, fp32 twins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.policy_methods import Methods
from latency.artifact import Artifact
from latency.database import connect
from latency.measurement import Measurement
from latency.protocol import measure
from latency.statistics import log_interval
from latency.store import LatencyStore
from latency.timing import TimingConfig
from nas.progress import progress
from nas.search import hypervolume
from nas.stages.device_lab import DeviceLab, random_subnets, told
from search_spaces import Architecture, UserError
from search_spaces.schemes import FULL

Floats = NDArray[np.float64]

SAME = 0.01
"""Share of a latency by which two files of one graph may differ."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A subnet with a policy against the same one in fp32, from sessions that timed both."""

    workload: str
    architecture: Architecture
    ratio: float
    """Latency over that in fp32."""
    half_width: float
    """Of the 95 % interval of its logarithm."""
    size_bytes: int
    """Of the weights, as the search knows it."""
    file_bytes: int
    twin_size_bytes: int
    twin_file_bytes: int
    same_graph: bool
    """Whether weights alone have few bits, so that both run alike: tells what noise there is."""
    again: bool = False
    """Whether it seemed slower once, and this is of sessions of its own, in standard mode."""

    @property
    def slower(self) -> bool:
        """Whether it is slower beyond doubt, and by more than nothing."""
        beyond = math.log(self.ratio) > max(self.half_width, math.log(1 + SAME))
        return beyond and not self.same_graph

    @property
    def larger(self) -> bool:
        """Whether it claims to be smaller, and its file is not."""
        return self.size_bytes < self.twin_size_bytes and self.file_bytes >= self.twin_file_bytes


class Judged:
    """Points of fronts, measured together.

    Args:
        methods: Gives qualities and costs.
        some: Every subnet of interest.
        paired: Those of them that are timed in the same sessions as their fp32 twins.
    """

    def __init__(
        self, methods: Methods, some: Sequence[Architecture], paired: Sequence[Architecture]
    ) -> None:
        self.methods = methods
        space = methods.supernet.space
        twin_of = {arch: space.with_scheme(arch, FULL) for arch in paired if space.schemes(arch)}
        every = list(dict.fromkeys([*some, *paired, *twin_of.values()]))
        lab = DeviceLab(methods.run, space)
        artifacts = random_subnets(lab, dict.fromkeys(lab.workloads, every))
        self.files = {
            arch: artifact.path.stat().st_size
            for made in artifacts.values()
            for arch, artifact in zip(every, made, strict=True)
        }
        columns, self.twins = [], list[Twin]()
        self.unstable = 0
        """Measurements that did not meet their interval."""
        for name, made in artifacts.items():
            of = dict(zip(every, made, strict=True))
            pairs = [[of[arch], of[twin]] for arch, twin in twin_of.items()]
            alone = [[of[arch]] for arch in every if arch not in twin_of]
            with progress(methods.run.console, f"Measuring {name}", len(every)) as update:
                found = measure(
                    [*pairs, *alone],
                    backend=lab.backend,
                    timing=lab.timing,
                    store=lab.store,
                    progress=told(update),
                    lease=lab.profile.lease,
                )
            measured = {arch: found[artifact.sha256] for arch, artifact in of.items()}
            columns.append([_milliseconds(measured[arch]) for arch in every])
            twins = [self._twin(name, a, b, (measured[a], measured[b])) for a, b in twin_of.items()]
            # Of many that are no slower, some seem so
            slower = [twin.architecture for twin in twins if twin.slower]
            again = _measured_anew(lab, {arch: (of[arch], of[twin_of[arch]]) for arch in slower})
            self.twins += [
                replace(self._twin(name, a, twin_of[a], again[a]), again=True)
                if (a := twin.architecture) in again
                else twin
                for twin in twins
            ]
            self.unstable += sum(one.status != "ok" for one in measured.values())
        rows = np.hstack(
            [
                methods.qualities(every, "test"),
                np.array(columns).T,
                methods.cheap(every)[:, len(columns) :],
            ]
        )
        self._rows = dict(zip(every, rows, strict=True))

    def values(self, some: Sequence[Architecture]) -> Floats:
        """Test quality, measured latencies and bytes, shape `(n, m)`."""
        return np.array([self._rows[arch] for arch in some])

    def _twin(
        self,
        workload: str,
        arch: Architecture,
        twin: Architecture,
        pair: tuple[Measurement, Measurement],
    ) -> Twin:
        ours, theirs = (measured.session_ratios for measured in pair)
        ratios = [ours[session] / theirs[session] for session in ours if session in theirs]
        interval = log_interval(ratios)
        space = self.methods.supernet.space
        return Twin(
            workload=workload,
            architecture=arch,
            ratio=interval.ratio,
            half_width=interval.half_width,
            size_bytes=space.cost(arch).size_bytes,
            file_bytes=self.files[arch],
            twin_size_bytes=space.cost(twin).size_bytes,
            twin_file_bytes=self.files[twin],
            same_graph=all(not block.timed.precision for block in space.blocks(arch)),
        )


def _measured_anew(
    lab: DeviceLab, pairs: Mapping[Architecture, tuple[Artifact, Artifact]]
) -> dict[Architecture, tuple[Measurement, Measurement]]:
    """Pairs in standard mode, whatever the store has of them; nothing for none."""
    if not pairs:
        return {}
    with (
        TemporaryDirectory() as folder,
        closing(connect(Path(folder) / "again.db")) as connection,
        progress(lab.run.console, "Measuring again", 2 * len(pairs)) as update,
    ):
        found = measure(
            [list(pair) for pair in pairs.values()],
            backend=lab.backend,
            timing=TimingConfig.standard(),
            store=LatencyStore(connection),
            progress=told(update),
            lease=lab.profile.lease,
        )
    again = {arch: (found[ours.sha256], found[fp32.sha256]) for arch, (ours, fp32) in pairs.items()}
    return {
        arch: (ours, fp32)
        for arch, (ours, fp32) in again.items()
        if ours.session_ratios.keys() & fp32.session_ratios.keys()
    }


def _milliseconds(found: Measurement) -> float:
    if found.median_ns is None:
        raise UserError(
            f"a subnet could not be measured: {found.status}, {found.message}; run the same "
            "command again"
        )
    return found.median_ns / 1e6


def hypervolumes(values: Mapping[str, Sequence[Floats]]) -> dict[str, list[float]]:
    """Of each way and seed, in the box of all points."""
    every = np.vstack([rows for some in values.values() for rows in some])
    ideal, reference = every.min(axis=0), every.max(axis=0)
    return {
        method: [hypervolume(rows, ideal=ideal, reference=reference) for rows in some]
        for method, some in values.items()
    }


def most_volume(fronts: Mapping[str, Sequence[Floats]], count: int) -> dict[str, list[list[int]]]:
    """For each front the points that together dominate the most, one taken after the other.

    All in the same box, that of all points: what is left out would hardly have counted.

    Args:
        fronts: By way, values for each seed, shape `(n, m)`.
        count: Points of each front, at most.
    """
    every = np.vstack([rows for some in fronts.values() for rows in some])
    ideal, reference = every.min(axis=0), every.max(axis=0)

    def chosen(rows: Floats) -> list[int]:
        found: list[int] = []
        for _ in range(min(count, len(rows))):
            left = [index for index in range(len(rows)) if index not in found]
            volumes = [
                hypervolume(rows[[*found, index]], ideal=ideal, reference=reference)
                for index in left
            ]
            found.append(left[int(np.argmax(volumes))])
        return found

    return {method: [chosen(rows) for rows in some] for method, some in fronts.items()}


def at_equal_quality(
    methods: Methods, front: Sequence[Architecture], reference: Architecture
) -> dict[str, Architecture]:
    """The best of a front in each cost among those not worse than a subnet on validation.

    Returns:
        By the name of the cost; empty where the front has no such subnet.
    """
    (limit,) = methods.qualities([reference], "validation")[:, 0]
    values = methods.values(front)
    good = np.flatnonzero(values[:, 0] <= limit)
    if len(good) == 0:
        return {}
    return {
        name: front[good[int(np.argmin(values[good, 1 + place]))]]
        for place, name in enumerate(methods.names)
    }
