"""The comparison as tables, and as one HTML page that needs no other file and no script."""

from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nas.atomic import write_text
from reports import numbers
from reports.axes import Axis
from reports.compare_svg import fronts_svg
from reports.comparison import Comparison, Latency
from reports.page import asset, environment, policy
from reports.shapes import describe, limits
from reports.tables import Cell, Column

Table = tuple[list[Column], list[list[Cell]]]


def write_comparison(found: Comparison, output: Path) -> None:
    """Write the page.

    Raises:
        UserError: The output cannot be written.
    """
    pairs = combinations(range(len(found.shared)), 2)
    # Latencies go across, as in the report.
    turned = [(a, b) if found.shared[a].kind != "quality" else (b, a) for a, b in pairs]
    page = environment().get_template("compare.html.j2")
    write_text(
        output,
        page.render(
            found=found,
            policy=policy(),
            style=Markup(asset("report.css")),
            pictures=[Markup(fronts_svg(found, a, b)) for a, b in turned],
            corner=corner(found),
            fronts=front_table(found),
            subnets=subnet_table(found, with_shapes=True),
        ),
    )


def comparison_tables(found: Comparison) -> tuple[Table, Table]:
    """The fronts, and the architectures that two runs know, for a terminal."""
    return front_table(found), subnet_table(found)


def corner(found: Comparison) -> str:
    """The corner of the hypervolume in words; "" where there is none."""
    values = zip(found.shared, found.corner, strict=False)
    return ", ".join(f"{_name(axis)} {axis.show(value)}" for axis, value in values)


def _name(axis: Axis) -> str:
    """An axis in a table: quality is that on validation everywhere."""
    return axis.label.removesuffix(" (validation)")


def front_table(found: Comparison) -> Table:
    """A row for each front: what it is, and how it does beside the others."""
    columns = [Column(label="Run", numeric=False), Column(label="Protocol", numeric=False)]
    columns += [Column(label=label) for label in ("Subnets", "Hypervolume", "Leading")]
    columns += [Column(label=f"Best {_name(axis)}") for axis in found.shared]
    rows = []
    for front in found.fronts:
        data, best = front.data, list(zip(*front.points.values(), strict=True))
        volume, leading = front.hypervolume, front.leading
        rows.append(
            [
                Cell(text=front.label),
                Cell(text=data.table.mode if data.table else numbers.MISSING),
                Cell(text=str(len(data.front.subnets))),
                Cell(text=numbers.MISSING if volume is None else f"{volume:.4f}"),
                Cell(text=numbers.MISSING if leading is None else str(leading)),
                *(
                    Cell(text=axis.show(min(best[place]) if best else None))
                    for place, axis in enumerate(found.shared)
                ),
            ]
        )
    return columns, rows


def subnet_table(found: Comparison, *, with_shapes: bool = False) -> Table:
    """A row for each architecture that two runs know: its name and latency in each of them."""
    workloads = list(found.subnets[0].latencies) if found.subnets else []
    labels = [front.label for front in found.fronts]
    heads = labels if len(workloads) < 2 else [f"{w}, {one}" for w in workloads for one in labels]
    columns = [Column(label=label, numeric=False) for label in heads]
    columns += [Column(label="Architecture", numeric=False)] if with_shapes else []
    most = limits(subnet.architecture for subnet in found.subnets)
    rows = []
    for subnet in found.subnets:
        each = [subnet.latencies[workload] for workload in workloads]
        row = [
            _name_and_latency(name, one)
            for times in each or [(None,) * len(labels)]
            for name, one in zip(subnet.names, times, strict=True)
        ]
        shape = Cell(text="; ".join(describe(subnet.architecture, most.layers)))
        rows.append([*row, shape] if with_shapes else row)
    return columns, rows


def _name_and_latency(name: str | None, latency: Latency | None) -> Cell:
    parts = [name] if name else []
    if latency is not None:
        sign = "" if latency.measured else "~"
        parts.append(f"{sign}{numbers.significant(latency.ms)} ms")
    return Cell(text=" ".join(parts) or numbers.MISSING)


def comparison_json(found: Comparison) -> dict[str, Any]:
    """What `nas compare --json` prints."""
    return {
        "objectives": [axis.id for axis in found.shared],
        "corner": list(found.corner),
        "fronts": [
            {
                "run": front.label,
                "device": front.data.front.device.name,
                "supernet": front.data.front.supernet,
                "subnets": len(front.data.front.subnets),
                "hypervolume": front.hypervolume,
                "leading": front.leading,
                "points": dict(front.points),
            }
            for front in found.fronts
        ],
        "architectures": [asdict(subnet) for subnet in found.subnets],
        "notes": list(found.notes),
    }
