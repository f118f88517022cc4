"""What run directories tell a person: a page, a CSV and a picture of each; fronts side by side."""

from reports.compare_page import comparison_json, comparison_tables, write_comparison
from reports.comparison import compare
from reports.csv_table import write_csv
from reports.data import load_run
from reports.front_svg import front_svg, write_front_svg
from reports.page import render, write_report

__all__ = [
    "compare",
    "comparison_json",
    "comparison_tables",
    "front_svg",
    "load_run",
    "render",
    "write_comparison",
    "write_csv",
    "write_front_svg",
    "write_report",
]
