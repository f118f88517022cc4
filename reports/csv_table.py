"""The front as one CSV file."""

import csv
import io
import json
from pathlib import Path

from nas.atomic import write_text
from reports.data import load_run
from reports.stages import FrontSubnet, RunData


def write_csv(directory: Path, output: Path, device_suffix: str = "") -> None:
    """Write a row per subnet of the front. Latencies are in ms; an empty cell is an unknown value.

    Args:
        directory: A run directory.
        output: The file to write, `front.csv` by custom.
        device_suffix: See `reports.data.load_run`.

    Raises:
        UserError: A stage file is missing or broken, or the output cannot be written.
    """
    data = load_run(directory, device_suffix)
    text = io.StringIO(newline="")
    rows = [_row(data, subnet) for subnet in data.front.subnets]
    writer = csv.DictWriter(text, _columns(data), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output, text.getvalue())


def _columns(data: RunData) -> list[str]:
    latencies = [
        f"{workload}_{column}"
        for workload in data.workloads
        for column in ("predicted_ms", "measured_ms", "low_ms", "high_ms", "sessions", "status")
    ]
    return [
        *("name", "metric", "validation", "test", "test_se", "export_test"),
        *latencies,
        *("macs", "parameters", "size_bytes", "kv_cache_bytes", "export", "architecture"),
    ]


def _row(data: RunData, subnet: FrontSubnet) -> dict[str, object]:
    quality = subnet.quality
    row: dict[str, object] = {
        "name": subnet.name,
        "metric": quality.metric,
        "validation": quality.validation,
        "test": quality.test,
        "test_se": quality.test_se,
        "export_test": quality.export_test,
        "macs": subnet.macs,
        "parameters": subnet.parameters,
        "size_bytes": subnet.size_bytes,
        "kv_cache_bytes": subnet.kv_cache_bytes,
        "export": subnet.export,
        "architecture": json.dumps(subnet.architecture, sort_keys=True),
    }
    for workload, latency in subnet.latencies.items():
        found = latency.measured_ms
        row |= {
            f"{workload}_predicted_ms": latency.predicted_ms,
            f"{workload}_measured_ms": found.median,
            f"{workload}_low_ms": found.low,
            f"{workload}_high_ms": found.high,
            f"{workload}_sessions": found.sessions,
            f"{workload}_status": found.status,
        }
    return row
