"""The command that gives a subnet of the front: `nas export RUN --best BOUNDS`."""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from nas.search.choice import best_within
from nas.search.constraints import Constraint
from reports.axes import axes, identity
from reports.stages import Genes, RunData

_PLAIN = re.compile(r"[A-Za-z0-9_]+")
"""Names of objectives that stand in double quotes as they are; others are a file's own."""
_DIGITS = (3, 4, 5, 7, 10, 17)


class Commands:
    """Commands for the subnets of one front, each tried by the rule that `nas export` follows.

    Args:
        data: The run.
        run: The run directory, as it is typed.
        device: Name of its device, if that is not the run's own.
    """

    def __init__(self, data: RunData, run: str, device: str | None) -> None:
        self._start = ["nas", "export", run]
        self._end = ["--device", device] if device else []
        self._places: Mapping[str, int] = {}
        search = data.search
        if search is None or not search.finished or not search.front:
            return  # nas export has nothing to choose from
        kinds = {axis.id: axis.kind for axis in axes(data)}
        qualities = [name for name in search.objectives if kinds.get(name) == "quality"]
        self._names = [name for name in search.objectives if kinds.get(name) != "quality"]
        points = [search.evaluated[index] for index in search.front]
        measured = _measured(data)
        rows: list[dict[str, float | None]] = []
        for point in points:
            row = dict(zip(search.objectives, point.values, strict=True))
            row.update(measured.get(identity(point.architecture), {}))
            rows.append(row)
        wanted = [*qualities[:1], *self._names]
        if not qualities or not self._names or not all(map(_PLAIN.fullmatch, self._names)):
            return
        if any(row[n] is None for row in rows for n in wanted):
            return
        self._values = np.array([[row[n] for n in self._names] for row in rows], dtype=np.float64)
        self._quality = np.array(
            [
                dict(zip(search.objectives, point.values, strict=True))[qualities[0]]
                for point in points
            ],
            dtype=np.float64,
        )
        self._places = {identity(point.architecture): at for at, point in enumerate(points)}

    def of(self, genes: Genes, output: str) -> str | None:
        """The shortest command that gives this very subnet; None if none does.

        Args:
            genes: The subnet.
            output: The file that it is to write.
        """
        place = self._places.get(identity(genes))
        if place is None:
            return None
        for bounds in self._candidates(place):
            names = list(dict.fromkeys(str(one.objective) for one in bounds))
            columns = [self._names.index(name) for name in names]  # of equal ones, these decide
            if best_within(self._values[:, columns], names, self._quality, bounds) == place:
                text = ", ".join(f"{one.objective} {one.operator} {_plain(one)}" for one in bounds)
                start = shlex.join([*self._start, *self._end])
                # In double quotes, as the documentation has them: names and numbers only.
                return f'{start} --best "{text}" --output {shlex.quote(output)}'
        return None

    def _candidates(self, place: int) -> Iterator[list[Constraint]]:
        """Bounds that may single a subnet out: on one cost, on all, and from below too.

        The last are for subnets that measuring has put behind others.
        """
        every = range(len(self._names))
        for columns in [[0], list(every)] if len(self._names) > 1 else [[0]]:
            for digits in _DIGITS:
                yield [self._bound(place, column, digits, "<=") for column in columns]
        for digits in _DIGITS:
            yield [
                self._bound(place, column, digits, operator)
                for column in every
                for operator in (">=", "<=")
            ]

    def _bound(
        self, place: int, column: int, digits: int, operator: Literal["<=", ">="]
    ) -> Constraint:
        value = float(self._values[place, column])
        bound = round_up(value, digits) if operator == "<=" else -round_up(-value, digits)
        return Constraint(objective=self._names[column], operator=operator, bound=bound)


def round_up(value: float, digits: int) -> float:
    """The least number of so many significant digits that is not below `value`."""
    if value == 0 or not math.isfinite(value):
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded < value:
        rounded = float(f"{rounded + step:.{digits - 1}e}")
    return max(rounded, value)


def _plain(bound: Constraint) -> str:
    return repr(bound.bound).removesuffix(".0")


def _measured(data: RunData) -> dict[str, dict[str, float]]:
    """Measured latencies of exported subnets, by identity and objective."""
    return {
        identity(subnet.architecture): {
            f"{workload}_ms": latency.measured_ms.median
            for workload, latency in subnet.latencies.items()
            if latency.measured_ms.median
        }
        for subnet in data.front.subnets
    }
