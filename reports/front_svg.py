"""The front as one small SVG picture, for a README: light or dark as its reader is."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from nas.atomic import write_text
from reports.axes import Axis, axes, default_axes, identity, objective_value, place
from reports.data import load_run
from reports.stages import RunData

WIDTH, HEIGHT = 820, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 62, 58
_CHARACTER = 6.4
"""Mean width of a character of small text, in pixels; only the legend's spacing hangs on it."""

_STYLE = """
.fs-back{fill:#fff;stroke:#d5d9de}.fs-text{fill:#23292f;font:13px system-ui,sans-serif}
.fs-small{font-size:12px;fill:#59636e}.fs-title{font-size:15px;font-weight:600}
.fs-grid{stroke:#e6e9ec}.fs-grey{fill:#8c959f;fill-opacity:.45}
.fs-line{fill:none;stroke:#0b62a8;stroke-opacity:.35;stroke-width:1.5}
.fs-bar{stroke:#0b62a8;stroke-width:1.5}.fs-dot{fill:#0b62a8;stroke:#fff;stroke-width:1}
.fs-mark{fill:none;stroke:#23292f;stroke-width:1.5}
@media (prefers-color-scheme:dark){
.fs-back{fill:#14181d;stroke:#343b44}.fs-text{fill:#e4e8ec}.fs-small{fill:#a3adb8}
.fs-grid{stroke:#2a3038}.fs-grey{fill:#8c96a1;fill-opacity:.5}.fs-line{stroke:#62b0f0}
.fs-bar{stroke:#62b0f0}.fs-dot{fill:#62b0f0;stroke:#14181d}.fs-mark{stroke:#e4e8ec}}
""".replace("\n", "")


def write_front_svg(directory: Path, output: Path, device_suffix: str = "") -> None:
    """Draw the measured front of a run: quality on validation over measured latency.

    Args:
        directory: A run directory.
        output: The SVG file to write.
        device_suffix: See `reports.data.load_run`.

    Raises:
        UserError: A stage file is missing or broken, or the output cannot be written.
    """
    write_text(output, front_svg(load_run(directory, device_suffix)) + "\n")


def front_svg(data: RunData) -> str:
    """The picture as SVG text, without an XML declaration, fit to stand in a page too."""
    x_axis, y_axis = default_axes(axes(data))
    front, grey, references = _collect(data, x_axis, y_axis)
    title = f"{y_axis.label} over measured {x_axis.label}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(title)}, {len(front)} subnets">'
        f"<style>{_STYLE}</style>"
        f'<rect class="fs-back" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>'
        f'<text class="fs-text fs-title" x="{_LEFT}" y="28">{escape(title)}</text>'
    )
    if not front:
        message = "No measured subnet on the front"
        return f'{head}<text class="fs-text" x="{_LEFT}" y="{HEIGHT // 2}">{message}</text></svg>'
    x = _Scale(
        [v for p in front for v in p[1:4]] + [r[1] for r in references], _LEFT, WIDTH - _RIGHT
    )
    y = _Scale([p[4] for p in front] + [r[2] for r in references], HEIGHT - _BOTTOM, _TOP)
    shown = [(a, b) for a, b in grey if x.covers(a) and y.covers(b)]
    parts = [head, *_frame(x, y, x_axis, y_axis)]
    parts += [
        f'<circle class="fs-grey" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"/>' for a, b in shown
    ]
    if (
        len(data.front.objectives) == 2
    ):  # with more, neighbours on the picture are none on the front
        points = " ".join(f"{x(p[1]):.1f},{y(p[4]):.1f}" for p in front)
        parts.append(f'<polyline class="fs-line" points="{points}"/>')
    for name, a, b in references:
        parts.append(
            f'<rect class="fs-mark" x="{x(a) - 5:.1f}" y="{y(b) - 5:.1f}" width="10" height="10">'
            f"<title>{escape(name)}</title></rect>"
        )
        if name in ("largest", "smallest"):
            parts.append(_text(x(a) - 10, y(b) - 9, name, "end" if name == "largest" else "start"))
    for name, median, low, high, quality in front:
        parts.append(
            f'<path class="fs-bar" d="M{x(low):.1f} {y(quality):.1f}H{x(high):.1f}'
            f'M{x(low):.1f} {y(quality) - 4:.1f}v8M{x(high):.1f} {y(quality) - 4:.1f}v8"/>'
            f'<circle class="fs-dot" cx="{x(median):.1f}" cy="{y(quality):.1f}" r="5">'
            f"<title>{escape(name)}</title></circle>"
        )
    parts += _legend(len(front), len(shown), len(grey), bool(references))
    return "".join(parts) + "</svg>"


_Front = list[tuple[str, float, float, float, float]]


def _collect(
    data: RunData, x_axis: Axis, y_axis: Axis
) -> tuple[_Front, list[tuple[float, float]], list[tuple[str, float, float]]]:
    front: _Front = []
    for subnet in data.front.subnets:
        across, up = place(data.front, subnet, x_axis), place(data.front, subnet, y_axis)
        median, quality = across.measured, up.measured
        if _known(median, quality) and median is not None and quality is not None:
            low = median if across.low is None else across.low
            high = median if across.high is None else across.high
            front.append((subnet.name, median, low, high, quality))
    search = data.search
    if search is None:
        return sorted(front, key=lambda p: p[1]), [], []
    exported = {identity(subnet.architecture) for subnet in data.front.subnets}
    grey, references = [], []
    for point in (*search.evaluated, *search.references):
        a = objective_value(search.objectives, point, x_axis)
        b = objective_value(search.objectives, point, y_axis)
        if not _known(a, b) or a is None or b is None:
            continue
        if point.name:
            references.append((point.name, a, b))
        elif identity(point.architecture) not in exported:
            grey.append((a, b))
    return sorted(front, key=lambda p: p[1]), grey, references


def _known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


class _Scale:
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


def _frame(x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> list[str]:
    parts = []
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for value in x.ticks():
        parts.append(f'<path class="fs-grid" d="M{x(value):.1f} {_TOP}V{bottom}"/>')
        parts.append(_text(x(value), bottom + 20, _tick(x_axis, value), "middle"))
    for value in y.ticks():
        parts.append(f'<path class="fs-grid" d="M{_LEFT} {y(value):.1f}H{right}"/>')
        parts.append(_text(_LEFT - 10, y(value) + 4, _tick(y_axis, value), "end"))
    logarithmic = ", logarithmic" if x.log else ""
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 14, x_axis.label + logarithmic, "middle"))
    turned = f"{y_axis.label}, logarithmic" if y.log else y_axis.label
    parts.append(
        f'<text class="fs-text fs-small" text-anchor="middle" transform="translate(22 '
        f'{(_TOP + bottom) / 2}) rotate(-90)">{escape(turned)}</text>'
    )
    return parts


def _tick(axis: Axis, value: float) -> str:
    if axis.fraction:
        return f"{100 * value:.6g} %"
    return axis.show(value) if axis.kind == "cost" else f"{value:.6g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="fs-text fs-small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _legend(front: int, shown: int, grey: int, references: bool) -> list[str]:
    y, x = 48, _LEFT + 6
    entries = [
        (f'<circle class="fs-dot" cx="{{x}}" cy="{y - 4}" r="5"/>', f"front, measured ({front})")
    ]
    if grey:
        count = f"{shown} of {grey} in view" if shown < grey else str(grey)
        mark = f'<circle class="fs-grey" cx="{{x}}" cy="{y - 4}" r="3"/>'
        entries.append((mark, f"other evaluations ({count})"))
    if references:
        mark = f'<path class="fs-mark" d="M{{x}} {y - 4}m-5 -5h10v10h-10z"/>'
        entries.append((mark, "largest, smallest, uniform (predicted)"))
    parts = []
    for mark, text in entries:
        parts += [mark.format(x=x), _text(x + 12, y, text, "start")]
        x += 42 + round(_CHARACTER * len(text))
    return parts
