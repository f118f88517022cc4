"""What each linear layer loses under each scheme, as one SVG picture: light or dark as its reader.

A row for each layer, and for stem and head where they have schemes; a group of columns for each
scheme. The shade is the logarithm of the loss.
"""

import math
from collections.abc import Mapping
from html import escape

from reports.numbers import significant
from reports.shapes import ENDS, PARTS, SCHEME_GENE
from reports.stages import Sensitivities

WIDTH = 820
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 104, 16
_ROW, _GAP = 26, 10
_DECADES = 4.0
"""Losses this far below the largest all have the lightest shade."""
_LIGHTEST = 0.06
_ON_DARK = 0.7
"""Shades from here on have text in the colour of the background."""
_ROOM_FOR_TEXT = 38
_UNITS = ((1.0, "nats"), (1e-3, "thousandths of a nat"), (1e-6, "millionths of a nat"))
_SHORT = {"qkv": "qkv", "attention_out": "out", "ffn_in": "FFN in", "ffn_out": "FFN out"}

_STYLE = """
.se-back{fill:#fff;stroke:#d5d9de}.se-text{fill:#23292f;font:12px system-ui,sans-serif}
.se-small{font-size:11px;fill:#59636e}.se-title{font-size:15px;font-weight:600}
.se-cell{fill:#0b62a8}.se-empty{fill:#eceff2}.se-value{font-size:11px;text-anchor:middle}
.se-on{fill:#fff}
@media (prefers-color-scheme:dark){
.se-back{fill:#14181d;stroke:#343b44}.se-text{fill:#e4e8ec}.se-small{fill:#a3adb8}
.se-cell{fill:#62b0f0}.se-empty{fill:#242a31}.se-on{fill:#14181d}}
""".replace("\n", "")

Losses = Mapping[tuple[str, str, str], float]
"""By row, part and scheme; stem and head are a row without parts."""


def sensitivity_svg(found: Sensitivities) -> str:
    """The picture as SVG text, fit to stand in a page; "" where there is nothing to show."""
    losses = _losses(found)
    positive = [value for value in losses.values() if value > 0]
    if not positive:
        return ""
    there = {row for row, _, _ in losses}
    rows = sorted(there - set(ENDS), key=int)
    rows = ["stem"] * ("stem" in there) + rows + ["head"] * ("head" in there)
    schemes = list(dict.fromkeys(scheme for _, _, scheme in losses))
    parts = [part for part in PARTS if any(part == one for _, one, _ in losses)]
    high = max(positive)
    unit, unit_name = next((u for u in _UNITS if high >= u[0]), _UNITS[-1])
    group = (WIDTH - _LEFT - _RIGHT + _GAP) / len(schemes) - _GAP
    width = group / max(len(parts), 1)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    title = f"Loss of each linear layer under each scheme alone, in the {found.subnet} subnet"
    pieces = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect class="se-back" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(_LEFT, 26, title, "se-title"),
        *_legend(high, unit, unit_name),
    ]
    if width < _ROOM_FOR_TEXT:
        names = ", ".join(_SHORT[part] for part in parts)
        pieces.append(_text(WIDTH - _RIGHT, 97, f"columns: {names}", "se-small", "end"))
    labels = {row: row if row in ENDS else f"layer {row}" for row in rows}
    for place, row in enumerate(rows):
        pieces.append(_text(_LEFT - 8, _TOP + _ROW * place + 17, labels[row], "se-small", "end"))
    for place, scheme in enumerate(schemes):
        left = _LEFT + place * (group + _GAP)
        pieces.append(_text(left + group / 2, 80, scheme, "", "middle"))
        for column, part in enumerate(parts):
            x = left + column * width
            if width >= _ROOM_FOR_TEXT:
                pieces.append(_text(x + width / 2, 97, _SHORT[part], "se-small", "middle"))
            for at, row in enumerate(rows):
                if row not in ENDS:
                    name = f"{labels[row]}, {PARTS[part]}, {scheme}"
                    loss = losses.get((row, part, scheme))
                    pieces += _cell(x, _TOP + _ROW * at, width, loss, high, unit, name)
        for at, row in enumerate(rows):
            if row in ENDS:
                name, loss = f"{row}, {scheme}", losses.get((row, "", scheme))
                pieces += _cell(left, _TOP + _ROW * at, group, loss, high, unit, name)
    return "".join(pieces) + "</svg>"


def _losses(found: Sensitivities) -> Losses:
    """Finite losses of the schemes that are not fp32, in the order of the file."""
    places = {f"precision.{end}": (end, "") for end in ENDS}
    for name in found.losses:
        if match := SCHEME_GENE.fullmatch(name):
            places[name] = match[2], match[1]
    return {
        (*places[name], scheme): value
        for name, of_schemes in found.losses.items()
        if name in places
        for scheme, value in of_schemes.items()
        if scheme != "fp32" and value is not None and math.isfinite(value)
    }


def _shade(loss: float, high: float) -> float:
    """Opacity of a cell, from `_LIGHTEST` to 1."""
    below = min(_DECADES, math.log10(high / loss)) if loss > 0 else _DECADES
    return 1 - (1 - _LIGHTEST) * below / _DECADES


def _cell(
    x: float, y: float, width: float, loss: float | None, high: float, unit: float, name: str
) -> list[str]:
    box = f'x="{x:.1f}" y="{y}" width="{width - 2:.1f}" height="{_ROW - 2}" rx="2"'
    if loss is None:
        return [f'<rect class="se-empty" {box}/>']
    shade = _shade(loss, high)
    text = f"{escape(name)}: {loss:.2g} nats"
    pieces = [
        f'<rect class="se-cell" {box} fill-opacity="{shade:.2f}"><title>{text}</title></rect>'
    ]
    if width >= _ROOM_FOR_TEXT:
        on = " se-on" if shade >= _ON_DARK else ""
        value = significant(loss / unit, 2)
        pieces.append(_text(x + width / 2 - 1, y + 16, value, f"se-value{on}"))
    return pieces


def _legend(high: float, unit: float, unit_name: str) -> list[str]:
    """Five shades, from the lightest to that of the largest loss."""
    x, pieces = float(_LEFT), []
    for step in range(5):
        loss = high / 10 ** (_DECADES * (1 - step / 4))
        label = ("under " if step == 0 else "") + significant(loss / unit, 2)
        shade = _shade(loss, high)
        pieces.append(
            f'<rect class="se-cell" x="{x:.1f}" y="40" width="16" height="14" rx="2" '
            f'fill-opacity="{shade:.2f}"/>'
        )
        pieces.append(_text(x + 22, 51, label, "se-small"))
        x += 40 + 6.2 * len(label)
    pieces.append(_text(x, 51, unit_name, "se-small"))
    return pieces


def _text(x: float, y: float, text: str, kind: str, anchor: str = "") -> str:
    turned = f' text-anchor="{anchor}"' if anchor else ""
    classes = f"se-text {kind}".strip()
    return f'<text class="{classes}" x="{x:.1f}" y="{y}"{turned}>{escape(text)}</text>'
