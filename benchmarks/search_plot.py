"""The search benchmark as a picture: a panel per problem, medians with the quartiles as bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nas.atomic import write_text

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 2, 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEAD = 52, 14, 30, 40, 62
_CHARACTER = 6.4
"""Mean width of a character of small text, in pixels; only the legend's spacing hangs on it."""
_FIRST = 50
"""Evaluations at the left edge; before, there is hardly a front."""
_COLOURS = {
    "auto+cheap": ("#0b62a8", "#62b0f0"),
    "auto": ("#0a7d4f", "#4cc38a"),
    "linas": ("#b4540a", "#f0a35e"),
    "nsga2": ("#8a3fa0", "#c98be0"),
    "random": ("#8c959f", "#8c96a1"),
}
_OTHERS = ("#59636e", "#a3adb8")


def write_plot(
    summary: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], output: Path
) -> None:
    """Write the picture as SVG, light or dark as its reader is."""
    write_text(output, plot(summary, titles) + "\n")


def plot(summary: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """The picture as SVG text."""
    rows = math.ceil(len(summary) / COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH + 20, _HEAD + rows * PANEL_HEIGHT + 10
    names = list(dict.fromkeys(name for found in summary.values() for name in found))
    title = "Share of the best front's hypervolume over evaluations"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title}"><style>{_style(names)}</style>'
        f'<rect class="b" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>'
        f'<text class="t" x="{_LEFT}" y="26">{title}</text>'
    ]
    x = float(_LEFT)
    for place, name in enumerate(names):
        parts.append(
            f'<path class="l c{place}" d="M{x:.0f} 43h18"/>'
            f'<text class="s" x="{x + 24:.0f}" y="47">{escape(name)}</text>'
        )
        x += 44 + _CHARACTER * len(name)
    parts.append(f'<text class="s" x="{x:.0f}" y="47">median, band: quartiles of the seeds</text>')
    for index, (problem, found) in enumerate(summary.items()):
        left = 10 + (index % COLUMNS) * PANEL_WIDTH
        top = _HEAD + (index // COLUMNS) * PANEL_HEIGHT
        parts.append(f'<g transform="translate({left} {top})">')
        parts += _panel(titles[problem], found, names)
        parts.append("</g>")
    return "".join(parts) + "</svg>"


def _panel(title: str, found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    curves = {name: _points(data["curve"]) for name, data in found.items()}
    counts = [count for points in curves.values() for count, *_ in points]
    values = [value for points in curves.values() for _, *band in points for value in band]
    first, last = math.log2(min(counts)), math.log2(max(counts))
    bottom, right = PANEL_HEIGHT - _BOTTOM, PANEL_WIDTH - _RIGHT
    floor, ceiling = min(values), max(max(values), 1.0)
    floor -= 0.05 * (ceiling - floor)

    def x(count: float) -> float:
        part = (math.log2(count) - first) / ((last - first) or 1.0)
        return _LEFT + part * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - floor) / ((ceiling - floor) or 1.0) * (bottom - _TOP)

    parts = [f'<text class="p" x="{_LEFT}" y="20">{escape(title)}</text>']
    for count in (50, 100, 200, 400, 800):
        if first <= math.log2(count) <= last:
            parts.append(f'<path class="g" d="M{x(count):.1f} {_TOP}V{bottom}"/>')
            parts.append(_text(x(count), bottom + 18, str(count), "middle"))
    for value in _ticks(floor, ceiling):
        parts.append(f'<path class="g" d="M{_LEFT} {y(value):.1f}H{right}"/>')
        parts.append(_text(_LEFT - 6, y(value) + 4, f"{100 * value:g} %", "end"))
    for name, points in curves.items():
        upper = [f"{x(count):.1f},{y(high):.1f}" for count, _, _, high in points]
        lower = [f"{x(count):.1f},{y(low):.1f}" for count, low, _, _ in reversed(points)]
        line = " ".join(f"{x(count):.1f},{y(middle):.1f}" for count, _, middle, _ in points)
        place = names.index(name)
        parts.append(f'<polygon class="f f{place}" points="{" ".join(upper + lower)}"/>')
        parts.append(f'<polyline class="l c{place}" points="{line}"/>')
    return parts


def _points(curve: Mapping[str, Any]) -> list[tuple[int, float, float, float]]:
    """Evaluations, lower quartile, median, upper quartile."""
    step = curve["step"]
    rows = zip(curve["low"], curve["median"], curve["high"], strict=True)
    every = [(step * (place + 1), *row) for place, row in enumerate(rows)]
    return [point for point in every if point[0] >= _FIRST] or every


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="s" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _style(names: Sequence[str]) -> str:
    light, dark = (
        "".join(
            f".c{place}{{stroke:{_COLOURS.get(name, _OTHERS)[shade]}}}"
            f".f{place}{{fill:{_COLOURS.get(name, _OTHERS)[shade]}}}"
            for place, name in enumerate(names)
        )
        for shade in (0, 1)
    )
    return (
        ".b{fill:#fff;stroke:#d5d9de}.t{fill:#23292f;font:600 15px system-ui,sans-serif}"
        ".p{fill:#23292f;font:13px system-ui,sans-serif}"
        ".s{fill:#59636e;font:12px system-ui,sans-serif}.g{stroke:#e6e9ec}"
        f".l{{fill:none;stroke-width:2}}.f{{fill-opacity:.15}}{light}"
        "@media (prefers-color-scheme:dark){.b{fill:#14181d;stroke:#343b44}.t,.p{fill:#e4e8ec}"
        f".s{{fill:#a3adb8}}.g{{stroke:#2a3038}}{dark}}}"
    )
