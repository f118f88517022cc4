"""Latencies of blocks that were not measured, from those that were, with a measured error.

Along the widths of each embedding first, then across embeddings: linear, or by monotone cubics
(PCHIP, Fritsch and Butland 1984), whichever erred less on blocks that were held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from latency.grid import point
from search_spaces.blocks import Block

UNKNOWN_STD = 0.10
"""Relative error where nothing was held out; counts as one such block where few were."""
ENOUGH_HELD_OUT = 4

Curve = Callable[[float], float]
Law = Callable[[Block], float | None]


@dataclass(frozen=True, kw_only=True)
class InterpolationError:
    """How far off the interpolation of one kind of block is, all as shares of the latency."""

    workload: str
    """Name of the workload."""
    kind: str
    """Kind of the blocks, with their schemes where they are not in fp32."""
    method: str
    """`linear` or `pchip`; `sum` for schemes that were measured apart."""
    interpolated: int
    """Rows that were not measured."""
    held_out: int
    """Measured blocks that it was judged on."""
    mape: float | None
    """Mean absolute error on these; None without any."""
    worst: float | None
    """Largest absolute error on these."""
    std: float
    """Standard deviation that the interpolated rows are given."""

    @classmethod
    def of(
        cls, workload: str, kind: str, method: str, interpolated: int, errors: Sequence[float]
    ) -> InterpolationError:
        """From the errors on measured blocks, as shares of their latency."""
        squares = math.fsum(error**2 for error in errors)
        if len(errors) >= ENOUGH_HELD_OUT:
            std = math.sqrt(squares / len(errors))
        else:
            std = math.sqrt((UNKNOWN_STD**2 + squares) / (1 + len(errors)))
        return cls(
            workload=workload,
            kind=kind,
            method=method,
            interpolated=interpolated,
            held_out=len(errors),
            mape=float(np.mean(np.abs(errors))) if errors else None,
            worst=float(np.max(np.abs(errors))) if errors else None,
            std=std,
        )

    def to_json(self) -> dict[str, object]:
        """As it stands in `table.json`."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.interpolated} {self.kind} rows of {self.workload} interpolated"
        if self.mape is None or self.worst is None:
            return f"{text}, their error not measured yet"
        return (
            f"{text} ({self.method}): {100 * self.mape:.1f} % off on average, "
            f"{100 * self.worst:.1f} % at worst, on {self.held_out} held-out blocks"
        )


def interpolate(
    workload: str,
    measured: Mapping[Block, float],
    wanted: Sequence[Block],
    held_out: Collection[Block],
) -> tuple[dict[Block, float], InterpolationError]:
    """Fill in the blocks of one kind.

    Args:
        workload: Name of the workload.
        measured: Latency in ms of the measured blocks of the kind, held-out ones among them.
        wanted: Blocks to fill in, all of that kind, at least one.
        held_out: Blocks to judge on, and not to interpolate from.

    Returns:
        The wanted blocks that lie between measured ones, with their latency in ms; and the error.
    """
    nodes = {block: ms for block, ms in measured.items() if block not in held_out}
    laws = {name: _law(nodes, curve) for name, curve in (("linear", _linear), ("pchip", _pchip))}
    judged = [block for block in measured if block in held_out and measured[block] > 0]
    errors = {name: _errors(law, {b: measured[b] for b in judged}) for name, law in laws.items()}
    method = min(laws, key=lambda name: math.fsum(error**2 for error in errors[name]))
    values = {block: laws[method](block) for block in wanted}
    found = {block: max(value, 0.0) for block, value in values.items() if value is not None}
    return found, InterpolationError.of(
        workload, wanted[0].variant, method, len(found), errors[method]
    )


def _errors(law: Law, truth: Mapping[Block, float]) -> list[float]:
    guesses = ((law(block), ms) for block, ms in truth.items())
    return [guess / ms - 1 for guess, ms in guesses if guess is not None]


def _law(
    nodes: Mapping[Block, float], curve: Callable[[Sequence[int], Sequence[float]], Curve]
) -> Law:
    """A function of blocks; None outside of what was measured."""
    rows: dict[int, dict[int, float]] = {}
    for block, ms in nodes.items():
        embed, width = point(block)
        rows.setdefault(embed, {})[width] = ms
    low = min((min(row) for row in rows.values()), default=0)
    high = max((max(row) for row in rows.values()), default=0)
    # A row whose ends are still missing would have to be extrapolated
    along = {
        embed: curve(sorted(row), [row[width] for width in sorted(row)])
        for embed, row in sorted(rows.items())
        if low in row and high in row
    }

    def law(block: Block) -> float | None:
        embed, width = point(block)
        if not along or not min(along) <= embed <= max(along) or not low <= width <= high:
            return None
        if embed in along:
            return along[embed](width)
        return curve(list(along), [value(width) for value in along.values()])(embed)

    return law


def _linear(places: Sequence[int], values: Sequence[float]) -> Curve:
    return lambda place: float(np.interp(place, places, values))


def _pchip(places: Sequence[int], values: Sequence[float]) -> Curve:
    if len(places) < 2:
        return _linear(places, values)
    found = PchipInterpolator(places, values, extrapolate=False)
    return lambda place: float(found(place))
