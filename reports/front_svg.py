"""The front as one small SVG picture, for a README: light or dark as its reader is."""

from html import escape
from pathlib import Path

from nas.atomic import write_text
from reports.axes import Axis, axes, default_axes, identity, objective_value, place
from reports.data import load_run
from reports.stages import RunData
from reports.svg_plot import CHARACTER, HEIGHT, LEFT, frame, head, known, scales, small_text

_STYLE = """
.fs-grey{fill:#8c959f;fill-opacity:.45}
.fs-line{fill:none;stroke:#0b62a8;stroke-opacity:.35;stroke-width:1.5}
.fs-bar{stroke:#0b62a8;stroke-width:1.5}.fs-dot{fill:#0b62a8;stroke:#fff;stroke-width:1}
.fs-mark{fill:none;stroke:#23292f;stroke-width:1.5}
@media (prefers-color-scheme:dark){
.fs-grey{fill:#8c96a1;fill-opacity:.5}.fs-line{stroke:#62b0f0}
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
    label = f"{title}, {len(front)} subnets"
    if not front:
        message = "No measured subnet on the front"
        text = f'<text class="fs-text" x="{LEFT}" y="{HEIGHT // 2}">{message}</text></svg>'
        return head(title, label, _STYLE) + text
    x, y = scales(
        [v for p in front for v in p[1:4]] + [r[1] for r in references],
        [p[4] for p in front] + [r[2] for r in references],
    )
    shown = [(a, b) for a, b in grey if x.covers(a) and y.covers(b)]
    parts = [head(title, label, _STYLE), *frame(x, y, x_axis, y_axis)]
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
            parts.append(
                small_text(x(a) - 10, y(b) - 9, name, "end" if name == "largest" else "start")
            )
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
        if known(median, quality) and median is not None and quality is not None:
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
        if not known(a, b) or a is None or b is None:
            continue
        if point.name:
            references.append((point.name, a, b))
        elif identity(point.architecture) not in exported:
            grey.append((a, b))
    return sorted(front, key=lambda p: p[1]), grey, references


def _legend(front: int, shown: int, grey: int, references: bool) -> list[str]:
    y, x = 48, LEFT + 6
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
        parts += [mark.format(x=x), small_text(x + 12, y, text, "start")]
        x += 42 + round(CHARACTER * len(text))
    return parts
