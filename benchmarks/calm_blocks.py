"""What timing disturbed blocks again gives, on this machine as it is.

    python -m benchmarks.calm_blocks --device cpu

Sessions of the same eight subnets in turn, all blocks timed once, or again where a probe says that
the machine was busy (`latency.calm`). Told for both: sessions that drift, the spread of a subnet's
log(candidate / anchor) between the sessions, its mean difference between both kinds, and time.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from benchmarks.latency import unseen_subnets
from benchmarks.results import FOLDER, percent, table, write_results
from latency.lease import device_lease
from latency.session_record import timed_session, utc_now
from latency.store import SessionRecord
from latency.timing import TimingConfig
from nas.config import load_config
from nas.run import Run
from nas.stages.device_lab import DeviceLab, random_subnets
from nas.stages.supernet import build_space

TIMINGS = {"standard": TimingConfig.standard(), "quick": TimingConfig.quick()}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row per kind of session."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--config", default="examples/digits.yaml")
    parser.add_argument("--mode", choices=list(TIMINGS), default="standard")
    parser.add_argument("--sessions", type=int, default=20, help="of each kind; at least 2")
    options = parser.parse_args(argv)
    if options.sessions < 2:
        parser.error(f"--sessions {options.sessions}: a spread needs at least 2")
    output = FOLDER / "calm_blocks"
    config = load_config(options.config, [f"device={options.device}", f"output={output}"])
    with Run.open(config) as run:
        lab = DeviceLab(run, build_space(config))
        found = sessions(lab, options.sessions, TIMINGS[options.mode])
    rows = {kind: summary(records) for kind, records in found.items()}
    header = ["blocks timed", "drifted", "spread", "without drifted", "seconds"]
    cells = [
        [
            kind,
            f"{row['drifted']}/{len(found[kind])}",
            percent(row["spread"]),
            percent(row["accepted_spread"]),
            f"{row['seconds']:.1f}",
        ]
        for kind, row in rows.items()
    ]
    print(table(header, cells))
    means = {kind: row["log_ratios"] for kind, row in rows.items()}
    apart = [again - once for once, again in zip(means["once"], means["again"], strict=True)]
    print(
        f"again over once: {percent(fmean(apart))} on average, each {percent(stdev(apart))} apart"
    )
    results = {"device": options.device, "mode": options.mode, **rows}
    print(write_results("calm_blocks", results), file=sys.stderr)
    return 0


def sessions(lab: DeviceLab, count: int, timing: TimingConfig) -> dict[str, list[SessionRecord]]:
    """Sessions of both kinds in turn, of the same subnets of the first workload."""
    workload = next(iter(lab.workloads))
    chosen = unseen_subnets(lab.space, timing.candidates_per_session, ())
    artifacts = random_subnets(lab, {workload: chosen})[workload]
    kinds = {"once": replace(timing, patience=0.0), "again": timing}
    found: dict[str, list[SessionRecord]] = {kind: [] for kind in kinds}
    with device_lease(lab.profile.lease), tempfile.TemporaryDirectory() as folder:
        models = [lab.backend.anchor(Path(folder)), *artifacts]
        for number in range(count):
            for kind, one in kinds.items():
                anchors = [r.anchor_ns for r in found["again"] if r.anchor_ns is not None]
                one = one.of_session(number, median(anchors) if anchors else None)
                about = {
                    "session_id": f"{kind}-{number}",
                    "seed": number,
                    "started_at": utc_now(),
                    "timing": {},
                }
                record = timed_session(about, models, lab.backend.run_session(models, one), one)
                found[kind].append(record)
                facts = record.facts
                print(
                    f"{kind}: {record.outcome}, drift {percent(record.drift)}, "
                    f"{facts['repeated_blocks']} repeated, {facts['disturbed_blocks']} disturbed, "
                    f"{_seconds(record):.1f} s",
                    file=sys.stderr,
                )
    return found


def summary(records: list[SessionRecord]) -> dict[str, Any]:
    """What sessions of one kind have in common."""
    accepted = [record for record in records if record.outcome == "accepted"]
    logs = _log_ratios(accepted if len(accepted) > 1 else records)
    return {
        "drifted": len(records) - len(accepted),
        "spread": fmean(stdev(model) for model in _log_ratios(records)),
        "accepted_spread": fmean(stdev(model) for model in logs) if len(accepted) > 1 else None,
        "log_ratios": [median(model) for model in logs],
        "seconds": fmean(_seconds(record) for record in records),
    }


def _log_ratios(records: list[SessionRecord]) -> list[list[float]]:
    """log(candidate / anchor) of every candidate in every session."""
    ratios = [[model.ratio for model in record.models[1:]] for record in records]
    return [[math.log(ratio) for ratio in one if ratio] for one in zip(*ratios, strict=True)]


def _seconds(record: SessionRecord) -> float:
    return float(record.facts["ended_at"]) - float(record.facts["started_at"])


if __name__ == "__main__":
    sys.exit(main())
