"""Several fronts in one plot of two objectives."""

from html import escape

from reports.comparison import Comparison
from reports.svg_plot import CHARACTER, LEFT, WIDTH, frame, head, scales, small_text

_COLOURS = 4
_SHAPES = (
    "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "m-4.5 -4.5h9v9h-9z",
    "m0 -6.5l6 10.5h-12z",
    "m0 -6.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z",
    "m0 6.5l6 -10.5h-12z",
)
"""Circle, square, triangle, diamond, triangle: as many as go with the colours in 20 ways."""

_STYLE = """
.fc{stroke:#fff;stroke-width:1}.fc0{fill:#0b62a8;color:#0b62a8}.fc1{fill:#c2570c;color:#c2570c}
.fc2{fill:#7a4fb0;color:#7a4fb0}.fc3{fill:#23292f;color:#23292f}
.fc-line{fill:none;stroke:currentColor;stroke-opacity:.35;stroke-width:1.5}
@media (prefers-color-scheme:dark){.fc{stroke:#14181d}.fc0{fill:#62b0f0;color:#62b0f0}
.fc1{fill:#f0924f;color:#f0924f}.fc2{fill:#b795ea;color:#b795ea}.fc3{fill:#e4e8ec;color:#e4e8ec}}
""".replace("\n", "")


def fronts_svg(found: Comparison, across: int, up: int) -> str:
    """The fronts along two of the shared objectives; "" where there is no subnet to draw."""
    x_axis, y_axis = found.shared[across], found.shared[up]
    every = [values for front in found.fronts for values in front.points.values()]
    if not every:
        return ""
    x, y = scales([values[across] for values in every], [values[up] for values in every])
    title = f"{y_axis.label} over {x_axis.label}"
    label = f"{title}: " + ", ".join(f"{f.label} ({len(f.points)} subnets)" for f in found.fronts)
    parts = [head(title, label, _STYLE), *frame(x, y, x_axis, y_axis)]
    place = LEFT + 6
    for index, front in enumerate(found.fronts):
        colour, shape = f"fc{index % _COLOURS}", _SHAPES[index % len(_SHAPES)]
        at = sorted((x(v[across]), y(v[up]), name) for name, v in front.points.items())
        if len(found.shared) == 2:  # with more, neighbours on the picture are none on the front
            line = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in at)
            parts.append(f'<polyline class="fc-line {colour}" style="fill:none" points="{line}"/>')
        for left, top, name in at:
            parts.append(
                f'<path class="fc {colour}" d="M{left:.1f} {top:.1f}{shape}">'
                f"<title>{escape(f'{front.label}: {name}')}</title></path>"
            )
        if place + 20 + CHARACTER * len(front.label) < WIDTH:  # the table below names all
            parts.append(f'<path class="fc {colour}" d="M{place} 44{shape}"/>')
            parts.append(small_text(place + 12, 48, front.label, "start"))
        place += 34 + round(CHARACTER * len(front.label))
    return "".join(parts) + "</svg>"
