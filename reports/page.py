"""The report: one HTML file that needs neither a network nor any other file."""

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nas.atomic import write_text
from reports import front_on_test, numbers, sections
from reports.axes import axes, default_axes
from reports.data import load_run
from reports.figures import front_figure, latency_figure, training_figure
from reports.front_svg import front_svg
from reports.genes import gene_table
from reports.policies import policy_table
from reports.sensitivity_svg import sensitivity_svg
from reports.shapes import limits
from reports.stages import RunData
from reports.use import use

_OPEN_ROWS = 12
"""A latency table with more rows than this is folded."""
_OPEN_GENES = 24
"""As are single genes, if they are more."""


def write_report(directory: Path, output: Path, device_suffix: str = "") -> None:
    """Write the report of one device of a run.

    Args:
        directory: A run directory, finished or not.
        output: The HTML file to write, `report.html` by custom.
        device_suffix: "" for the first device of the directory, else as in `front.NAME.json`.

    Raises:
        UserError: A stage file is broken, there is none yet, or the output cannot be written.
    """
    write_text(output, render(load_run(directory, device_suffix)))


def render(data: RunData) -> str:
    """The report as HTML text. Whatever the stage files say is escaped."""
    script, plotly = report_script(), str(get_plotlyjs())
    most = limits(_architectures(data))
    front_axes = default_axes(axes(data)) if axes(data) else ()
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            title=str(data.config.get("name") or "Run"),
            style=Markup(asset("report.css")),
            script=Markup(script),
            plotly=Markup(plotly),
            policy=policy(script, plotly),
            figures=Markup(_json_block(data, most.layers)),
            tiles=sections.tiles(data),
            notices=sections.notices(data),
            front_axes=front_axes,
            front_table=sections.front_table(data),
            on_test=list(front_on_test.sentences(data.front, axes(data))),
            front_picture=Markup(front_svg(data)) if front_axes else "",
            cards=sections.cards(data, most),
            gene_table=gene_table(data),
            open_genes=_OPEN_GENES,
            use=use(data),
            most=most,
            policy_table=policy_table(data),
            sensitivity_picture=Markup(_sensitivities(data)),
            accuracy=sections.accuracy(data),
            latency_table=sections.latency_table(data),
            latency_lines=sections.latency_lines(data),
            open_rows=_OPEN_ROWS,
            sanity_table=sections.sanity_table(data.supernet) if data.supernet else None,
        )
    )


@cache
def environment() -> Environment:
    """What templates are rendered with: everything is escaped, and nothing may be missing."""
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": numbers.duration,
        "significant": numbers.significant,
        "flat": lambda value: list(sections.flat(value)),
    }
    return environment


def _architectures(data: RunData) -> list[dict[str, int | float | str | bool]]:
    found = [subnet.architecture for subnet in data.front.subnets]
    if data.search is not None:
        found += [point.architecture for point in data.search.evaluated]
        found += [point.architecture for point in data.search.references]
    return found


def _sensitivities(data: RunData) -> str:
    found = data.front.sensitivities
    return "" if found is None else sensitivity_svg(found)


def report_script() -> str:
    """What draws the figures of a report."""
    return asset("plot.js") + asset("report.js")


def asset(name: str) -> str:
    """A file beside the templates."""
    return resources.files("reports").joinpath("templates", name).read_text(encoding="utf-8")


def _json_block(data: RunData, layers: int) -> str:
    training = data.config.get("training")
    distillation = training.get("distillation") if isinstance(training, dict) else None
    drawn = axes(data) and (data.front.subnets or data.search)
    figures = {
        "front": front_figure(data, layers) if drawn else None,
        "latency": latency_figure(data, layers),
        "training": training_figure(data.training, distillation) if data.training else None,
    }
    text = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    # Within <script> only "<" can end the block or open a comment; the others cost nothing.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def policy(*scripts: str) -> str:
    """A policy that lets these scripts run and nothing else, and no request leave the page."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
