"""All stages by name, the report among them, and all of them in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.run import Run
from nas.run_directory import short
from nas.stages.front import export_best, export_front
from nas.stages.measure import measure_device as measure
from nas.stages.search import search_front as search
from nas.stages.supernet import open_supernet, train

__all__ = ["export_best", "export_front", "measure", "report", "run_all", "search", "train"]


def report(run: Run) -> dict[str, Any]:
    """Write the report, the front as CSV and its picture."""
    from reports import write_csv, write_front_svg, write_report

    directory = run.directory
    suffix = "" if directory.is_first_device else run.device
    write_report(directory.path, directory.report, suffix)
    write_csv(directory.path, directory.front_csv, suffix)
    picture: Path = directory.report.with_suffix(".svg")
    write_front_svg(directory.path, picture, suffix)
    return {"report": short(directory.report), "csv": short(directory.front_csv)}


def run_all(run: Run) -> dict[str, Any]:
    """Train, measure, search, export and report."""
    trained = train(run)
    supernet = open_supernet(run)
    measured = measure(run, supernet.space)
    searched = search(run, supernet)
    exported = export_front(run, supernet)
    return {
        "supernet": trained,
        "table": measured,
        "search": searched,
        "failed_measurements": exported["failed_measurements"],
        "front": short(run.directory.front),
        **report(run),
    }
