"""From which width on do 8-bit products pay, for each batch and length? From a latency table.

    python -m benchmarks.int8_pays

Measures the blocks of both examples in fp32 and in `w8a8` under several workloads, and tells for
each part of a layer and embedding width the least width (heads, or FFN width) from which `w8a8` in
that part alone saves as much as a search asks for (`predictors.policies.LEAST_GAIN`), there and at
all larger widths; and how many times as fast the block then is at the largest width. Keep the
machine idle meanwhile; what was measured is kept under runs/benchmarks/quantization/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quantization import EXAMPLES, SMOKE, WORKLOADS
from benchmarks.results import FOLDER, number, table, write_results
from latency.table import LatencyTable
from nas.atomic import read_json
from nas.config import Config, load_config
from nas.run import Run
from nas.stages.measure import measure_device
from nas.stages.prediction import read_rows
from nas.stages.supernet import build_space
from predictors.policies import LEAST_GAIN
from search_spaces import TransformerSpace
from search_spaces.schemes import PARTS_OF

SCHEME = "w8a8"
WIDTHS = {"attention": "heads", "ffn": "ffn"}


def main() -> int:
    """Measure, and print a table for each example."""
    options = arguments(__doc__)
    found = {}
    for name in options.examples or EXAMPLES:
        with Run.open(configuration(name, options)) as run:
            measure_device(run)
            space, rows = build_space(run.config), read_rows(read_json(run.directory.table))
            found[name] = thresholds(space, rows, tuple(run.config.calls))
        print(f"\n{name}\n{thresholds_table(found[name])}")
    path = write_results("int8_pays", found)
    print(f"\n{path}", file=sys.stderr)
    return 0


def arguments(description: str | None) -> argparse.Namespace:
    """What this benchmark and its like are told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--example", action="append", choices=tuple(EXAMPLES), dest="examples")
    parser.add_argument("--mode", choices=("quick", "standard"), default="quick")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of every configuration")
    return parser.parse_args()


def configuration(
    name: str, options: argparse.Namespace, folder: Path = FOLDER / "quantization"
) -> Config:
    """An example with more workloads, and with fp32 and 8 bits alone; its run is in `folder`."""
    quality = "error" if name == "digits" else "bits_per_byte"
    return load_config(
        EXAMPLES[name],
        [
            f"output={folder / (name + ('-smoke' if options.smoke else ''))}",
            f"space.precision=[fp32, {SCHEME}]",
            f"workloads={WORKLOADS[name]}",
            f"search.objectives=[{quality}]",
            f"latency.mode={options.mode}",
            "latency.correction_subnets=0",
            *(SMOKE if options.smoke else ()),
            *options.overrides,
        ],
    )


def thresholds(
    space: TransformerSpace, rows: LatencyTable, workloads: Sequence[str]
) -> list[dict[str, Any]]:
    """A line per workload, part and embedding width.

    Returns:
        `least`: the width from which the scheme pays, None where it never does. `times`: fp32 over
        it at the largest width.
    """
    found = []
    for workload in workloads:
        for kind, width in WIDTHS.items():
            for part in PARTS_OF[kind]:
                for embed in space.choices["embed"]:
                    blocks = sorted(
                        (
                            block
                            for block in space.timed_blocks()
                            if block.kind == kind
                            and block.width("embed") == embed
                            and block.precision == ((part, SCHEME),)
                        ),
                        key=lambda block: block.width(width),
                    )
                    times = [
                        rows.latency_ms(workload, block.with_policy(()))
                        / rows.latency_ms(workload, block)
                        for block in blocks
                    ]
                    least = None
                    for block, ratio in zip(blocks[::-1], times[::-1], strict=True):
                        if 1 / ratio > 1 - LEAST_GAIN:
                            break
                        least = block.width(width)
                    found.append(
                        {
                            "workload": workload,
                            "part": part,
                            "width": width,
                            "embed": embed,
                            "least": least,
                            "times": times[-1],
                        }
                    )
    return found


def thresholds_table(found: Sequence[dict[str, Any]]) -> str:
    """A line per workload and part, a column per embedding width."""
    embeds = list(dict.fromkeys(one["embed"] for one in found))
    lines: dict[tuple[str, str], list[str]] = {}
    for one in found:
        least = "never" if one["least"] is None else f"{one['width']} {one['least']}"
        line = lines.setdefault((one["workload"], one["part"]), [])
        line.append(f"{least} ({number(one['times'], 2)})")
    header = ["workload, part", *(f"embed {embed}" for embed in embeds)]
    return table(header, [[", ".join(key), *line] for key, line in lines.items()])


if __name__ == "__main__":
    sys.exit(main())
