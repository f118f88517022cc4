"""What a run directory tells a person: one HTML page, one CSV and one picture."""

from reports.csv_table import write_csv
from reports.data import load_run
from reports.front_svg import front_svg, write_front_svg
from reports.page import render, write_report

__all__ = ["front_svg", "load_run", "render", "write_csv", "write_front_svg", "write_report"]
