"""All stages by name, the report among them, and all of them in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.atomic import read_json
from nas.run import Run
from nas.run_directory import short
from nas.stages.cluster import check_cluster
from nas.stages.front import export_best
from nas.stages.front import export_front as export_and_measure
from nas.stages.measure import measure_device as measure
from nas.stages.search import refuse_impossible
from nas.stages.search import search_front as search
from nas.stages.supernet import build_space, open_supernet, train

__all__ = ["export_best", "export_front", "measure", "report", "run_all", "search", "train"]


def report(run: Run) -> dict[str, Any]:
    """Write the report; of a front that was exported the CSV and the picture too."""
    from reports import write_csv, write_front_svg, write_report

    directory = run.directory
    suffix = "" if directory.is_first_device else run.device
    write_report(directory.path, directory.report, suffix)
    if not directory.front.exists():  # the run is not finished, as the report says
        return {"report": short(directory.report)}
    write_csv(directory.path, directory.front_csv, suffix)
    picture: Path = directory.report.with_suffix(".svg")
    write_front_svg(directory.path, picture, suffix)
    return {"report": short(directory.report), "csv": short(directory.front_csv)}


def export_front(run: Run) -> dict[str, Any]:
    """Export the front and measure it."""
    summary = export_and_measure(run)
    print_front(run)
    return summary


def print_front(run: Run) -> None:
    """Show the front as a table: test quality in the runtime, latency as measured."""
    from rich import box
    from rich.table import Table

    front = read_json(run.directory.front)
    if not front["subnets"]:
        return
    first = front["subnets"][0]
    metric = first["quality"]["metric"]
    title = f"{front['name']} on {front['device']['name']}, {front['mode']} timing"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    # A narrow terminal breaks cells, and cuts none off.
    table.add_column("subnet", overflow="fold")
    table.add_column(f"test {metric.replace('_', ' ')}", justify="right", overflow="fold")
    for workload in first["workloads"]:
        name = "" if workload == "latency" else f"{workload} "
        table.add_column(f"{name}predicted ms", justify="right", overflow="fold")
        table.add_column(f"{name}measured ms", justify="right", overflow="fold")
    table.add_column("MACs", justify="right", overflow="fold")
    table.add_column("weights", justify="right", overflow="fold")
    for subnet in front["subnets"]:
        quality = subnet["quality"]
        cells = [subnet["name"], f"{quality['export_test']:.4f} ±{quality['test_se']:.4f}"]
        for workload in subnet["workloads"].values():
            cells += [f"{workload['predicted_ms']:.4f}", _measured(workload["measured_ms"])]
        cells += [f"{subnet['macs'] / 1e6:.2f} M", f"{subnet['size_bytes'] / 1e6:.2f} MB"]
        table.add_row(*cells)
    run.console.print(table)
    if any(
        workload["measured_ms"]["status"] == "unstable"
        for subnet in front["subnets"]
        for workload in subnet["workloads"].values()
    ):
        run.console.print(
            "~ unstable: too few undisturbed sessions, or an interval wider than the protocol "
            "allows; measure again on an idle machine",
            highlight=False,
        )


def _measured(measured: dict[str, Any]) -> str:
    """A measured latency with its interval; a `~` marks one that is not `ok`."""
    if measured["median"] is None:
        return str(measured["status"])
    sign = "" if measured["status"] == "ok" else "~"
    low, high = measured["low"], measured["high"]
    half = "" if low is None else f" ±{(high - low) / 2:.4f}"
    return f"{sign}{measured['median']:.4f}{half}"


def run_all(run: Run) -> dict[str, Any]:
    """Train, measure, search, export and report.

    Measuring needs no weights. With bounds it comes first, so that one that nothing meets is told
    before hours of training.
    """
    check_cluster(run)
    if run.config.search.bounds:
        space = build_space(run.config)
        refuse_impossible(run, space, measured=False)
        _begin(run, "measure")
        measure(run, space)
        refuse_impossible(run, space, measured=True)
    _begin(run, "train")
    trained = train(run)
    supernet = open_supernet(run)
    _begin(run, "measure")
    measured = measure(run, supernet.space)
    _begin(run, "search")
    searched = search(run, supernet)
    _begin(run, "export")
    exported = export_and_measure(run, supernet)
    print_front(run)
    return {
        "supernet": trained,
        "table": measured,
        "search": searched,
        "failed_measurements": measured["failed_measurements"] + exported["failed_measurements"],
        "front": short(run.directory.front),
        **report(run),
    }


def _begin(run: Run, stage: str) -> None:
    """Tell those who look on which stage is next."""
    run.events.write("stage_started", stage=stage)
