"""The frame of a small SVG plot: scales, grid, labels; light or dark as its reader is."""

import math
from collections.abc import Sequence
from html import escape

from reports.axes import Axis

WIDTH, HEIGHT = 820, 440
LEFT, TOP = 84, 62
_RIGHT, _BOTTOM = 24, 58
CHARACTER = 6.4
"""Mean width of a character of small text, in pixels; only the spacing of legends hangs on it."""

_STYLE = """
.fs-back{fill:#fff;stroke:#d5d9de}.fs-text{fill:#23292f;font:13px system-ui,sans-serif}
.fs-small{font-size:12px;fill:#59636e}.fs-title{font-size:15px;font-weight:600}
.fs-grid{stroke:#e6e9ec}
@media (prefers-color-scheme:dark){
.fs-back{fill:#14181d;stroke:#343b44}.fs-text{fill:#e4e8ec}.fs-small{fill:#a3adb8}
.fs-grid{stroke:#2a3038}}
""".replace("\n", "")


def head(title: str, label: str, style: str) -> str:
    """The beginning of a picture: its style, its background and its title.

    Args:
        title: Shown above the plot.
        label: What a screen reader says of it all.
        style: CSS of what is drawn into the frame.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(label)}">'
        f"<style>{_STYLE}{style}</style>"
        f'<rect class="fs-back" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>'
        f'<text class="fs-text fs-title" x="{LEFT}" y="28">{escape(title)}</text>'
    )


def known(*values: float | None) -> bool:
    """Whether all values are there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)


class Scale:
    """Maps values to pixels, by their logarithm when they span much."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self.log = low > 0 and high / low > 8
        low, high = self._turn(low), self._turn(high)
        pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        self.low, self.high, self.start, self.end = low - pad, high + pad, start, end

    def _turn(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        """Where a value lies, in pixels."""
        part = (self._turn(value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def covers(self, value: float) -> bool:
        """Whether a value lies within the frame."""
        if self.log and value <= 0:
            return False
        return self.low <= self._turn(value) <= self.high

    def ticks(self) -> list[float]:
        """Round values within the frame."""
        if self.log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            return [v for k in powers for m in (1, 2, 5) if self.covers(v := m * 10.0**k)]
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [k * step for k in range(first, last + 1)]


def scales(x: Sequence[float], y: Sequence[float]) -> tuple[Scale, Scale]:
    """Scales on which all values lie within the frame, upwards the second."""
    return Scale(x, LEFT, WIDTH - _RIGHT), Scale(y, HEIGHT - _BOTTOM, TOP)


def frame(x: Scale, y: Scale, x_axis: Axis, y_axis: Axis) -> list[str]:
    """Grid and labels of a plot."""
    parts = []
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for value in x.ticks():
        parts.append(f'<path class="fs-grid" d="M{x(value):.1f} {TOP}V{bottom}"/>')
        parts.append(small_text(x(value), bottom + 20, _tick(x_axis, value), "middle"))
    for value in y.ticks():
        parts.append(f'<path class="fs-grid" d="M{LEFT} {y(value):.1f}H{right}"/>')
        parts.append(small_text(LEFT - 10, y(value) + 4, _tick(y_axis, value), "end"))
    logarithmic = ", logarithmic" if x.log else ""
    parts.append(small_text((LEFT + right) / 2, HEIGHT - 14, x_axis.label + logarithmic, "middle"))
    turned = f"{y_axis.label}, logarithmic" if y.log else y_axis.label
    parts.append(
        f'<text class="fs-text fs-small" text-anchor="middle" transform="translate(22 '
        f'{(TOP + bottom) / 2}) rotate(-90)">{escape(turned)}</text>'
    )
    return parts


def _tick(axis: Axis, value: float) -> str:
    if axis.fraction:
        return f"{100 * value:.6g} %"
    return axis.show(value) if axis.kind == "cost" else f"{value:.6g}"


def small_text(x: float, y: float, text: str, anchor: str) -> str:
    """Text that starts, ends or has its middle at a place."""
    return (
        f'<text class="fs-text fs-small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
