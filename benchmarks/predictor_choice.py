"""Ways to predict latency, compared on the whole subnets that a run directory has measured.

For each device, mode and workload in the run's `run.db`: some whole subnets are drawn to fit on,
all others are predicted; again with other draws. `table` is the latency table with its correction,
the other names are of `predictors.regressors`, learned from the whole subnets alone; `transfer`
starts from the table of another device (of the same run directory, or of `--source`) and needs
none of its own; `choice` is the one that cross-validation takes. Nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.results import number, percent, table, write_results
from latency.noise import session_noise
from latency.overhead import FEW, MANY, chain_overhead, references
from latency.session_effects import without_session_effects
from latency.statistics import log_interval, mean_interval
from latency.store import History
from latency.table import LatencyTable, TableRow
from nas.config import load_config
from nas.stages.supernet import build_space
from predictors.accuracy import kendall_tau, mape
from predictors.calibration import Z_90
from predictors.choice import choose
from predictors.learned import LearnedPredictor
from predictors.protocol import ArchitecturePredictor
from predictors.regressors import REGRESSORS
from predictors.table import TablePredictor
from predictors.transfer import TransferPredictor
from search_spaces import Architecture, TransformerSpace, UserError

Ratios = dict[str, float]
"""Candidate over anchor by session."""


@dataclass(kw_only=True)
class Measured:
    """What one device said under one workload, in one mode."""

    device: str
    """Digest of the fingerprint."""
    mode: str
    workload: str
    baseline_ms: float
    whole: dict[Architecture, Ratios] = field(default_factory=lambda: defaultdict(dict))
    chains: dict[tuple[str, int], Ratios] = field(default_factory=lambda: defaultdict(dict))
    """By block and number of copies."""

    shared: float = 0.0
    """Standard error that all whole subnets have in common."""

    def adjust(self) -> None:
        """Take the effects of the sessions out of the ratios."""
        models = {("whole", arch.to_json()): ratios for arch, ratios in self.whole.items()}
        models |= {(block, str(copies)): r for (block, copies), r in self.chains.items()}
        history = {
            key: [
                History(
                    session_id=session,
                    outcome="accepted",
                    hot=False,
                    status="ok",
                    ratio=ratio,
                    message="",
                )
                for session, ratio in ratios.items()
            ]
            for key, ratios in models.items()
        }
        for key, sessions in without_session_effects(history, list(history)).items():
            models[key].update({e.session_id: e.ratio for e in sessions.entries if e.ratio})
            self.shared = max(self.shared, sessions.shared)

    def latency_ms(self, architectures: Sequence[Architecture]) -> list[float]:
        """Latency of whole subnets."""
        ratios = [log_interval(list(self.whole[arch].values())).ratio for arch in architectures]
        return [ratio * self.baseline_ms for ratio in ratios]

    def table(self, space: TransformerSpace) -> LatencyTable | None:
        """The table, if every block was measured often enough."""
        rows = []
        overhead: dict[str, list[float]] = defaultdict(list)
        for block in references(space.all_blocks()):
            few, many = (self.chains[str(block), copies] for copies in (FEW, MANY))
            overhead[block.kind] += [chain_overhead(few[i], many[i]) for i in few if i in many]
        for block in space.all_blocks():
            if block.kind == "fixed":
                costs = list(self.chains[str(block), 0].values())
            elif overhead[block.kind]:
                chains = self.chains[str(block), MANY].values()
                costs = [(ratio - fmean(overhead[block.kind])) / MANY for ratio in chains]
            else:
                return None
            if len(costs) < 2:
                return None
            mean, half_width = mean_interval(costs)
            rows.append(
                TableRow(
                    block=block,
                    workload=self.workload,
                    latency_ms=max(mean, 0.0) * self.baseline_ms,
                    low_ms=(mean - half_width) * self.baseline_ms,
                    high_ms=(mean + half_width) * self.baseline_ms,
                    sessions=len(costs),
                    status="ok",
                )
            )
        return LatencyTable(rows)


def stored(folder: Path) -> tuple[TransformerSpace, list[Measured]]:
    """Space of a run directory, and what was measured in it.

    Raises:
        UserError: It is no run directory.
    """
    database = folder / "run.db"
    if not database.exists():
        raise UserError(f"{folder} holds no run.db; give the directory of a run")
    space = build_space(load_config(folder / "config.yaml"))
    found: dict[tuple[str, str, str], Measured] = {}
    query = (
        "SELECT s.fingerprint, s.mode, d.baseline_ns, s.session_id, m.ratio, m.provenance"
        " FROM latency_sessions s JOIN latency_samples m USING (number)"
        " JOIN latency_devices d USING (fingerprint) WHERE s.outcome = 'accepted'"
        " AND m.status = 'ok' AND d.baseline_ns IS NOT NULL ORDER BY s.number"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for device, mode, baseline_ns, session, ratio, text in connection.execute(query):
            facts = json.loads(text)
            if "workload" not in facts:
                continue  # the anchor
            one = found.setdefault(
                (device, mode, facts["workload"]),
                Measured(
                    device=device,
                    mode=mode,
                    workload=facts["workload"],
                    baseline_ms=baseline_ns / 1e6,
                ),
            )
            if "block" in facts:
                one.chains[facts["block"], facts["copies"]][session] = ratio
            elif "architecture" in facts:
                arch = Architecture.from_json(facts["architecture"])
                if arch in space:
                    one.whole[arch][session] = ratio
    for one in found.values():
        one.adjust()
    return space, list(found.values())


def candidates(
    space: TransformerSpace, measured: Measured, others: Sequence[Measured]
) -> dict[str, Callable[[], ArchitecturePredictor]]:
    """Makers of the predictors that can be tried on a device."""
    makers: dict[str, Callable[[], ArchitecturePredictor]] = {}
    own = measured.table(space)
    if own is not None:
        makers["table"] = partial(TablePredictor, space, own, measured.workload)
    for other in others:
        known = other.table(space)
        if other is measured or other.workload != measured.workload or known is None:
            continue
        source = TablePredictor(space, known, other.workload)
        whole = list(other.whole)
        source.fit(whole, other.latency_ms(whole))
        makers["transfer"] = partial(TransferPredictor, source)
        break
    for name in REGRESSORS:
        makers[name] = partial(LearnedPredictor, space, name)
    return makers


def trials(
    space: TransformerSpace,
    measured: Measured,
    others: Sequence[Measured],
    sizes: Sequence[int],
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Error, order and coverage of each predictor, by number of subnets it was fitted on."""
    architectures = list(measured.whole)
    latency = np.array(measured.latency_ms(architectures))
    makers = candidates(space, measured, others)
    for size in sizes:
        if len(architectures) - size < 5:
            break
        rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        taken: list[str] = []
        for repeat in range(repeats):
            order = np.random.default_rng(repeat).permutation(len(architectures))
            fitted = [architectures[i] for i in order[:size]]
            unseen = [architectures[i] for i in order[size:]]
            truth = latency[order[size:]]
            noise = session_noise([measured.whole[arch] for arch in fitted], measured.shared)
            made = {name: make() for name, make in makers.items()}
            choice = choose(made, fitted, latency[order[:size]], noise=noise)
            taken.append(choice.name)
            tried: dict[str, Any] = {"choice": choice.predictor}
            tried |= {name: made[name] for name in choice.errors}
            for name, predictor in tried.items():
                mean, std = predictor.predict(unseen)
                covered = float(np.mean(np.abs(mean - truth) <= Z_90 * std))
                rows[name].append((mape(mean, truth), kendall_tau(mean, truth), covered))
        for name, found in rows.items():
            error, tau, covered = np.mean(found, axis=0)
            yield {
                "subnets": size,
                "unseen": len(architectures) - size,
                "predictor": name,
                "mape": float(error),
                "kendall_tau": float(tau),
                "coverage": float(covered),
                "taken": taken.count(name) / repeats,
            }


def show(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as a table."""
    header = ["predictor", "fitted on", "unseen", "MAPE", "tau", "coverage of 90 %", "chosen"]
    return table(
        header,
        [
            [
                row["predictor"],
                str(row["subnets"]),
                str(row["unseen"]),
                percent(row["mape"]),
                number(row["kendall_tau"]),
                percent(row["coverage"], 0),
                "" if row["predictor"] == "choice" else percent(row["taken"], 0),
            ]
            for row in results
        ],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each device, mode and workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run directories")
    parser.add_argument("--source", type=Path, help="a run directory with another device's table")
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 25])
    parser.add_argument("--repeats", type=int, default=5, help="draws for each size")
    options = parser.parse_args(argv)
    results = []
    for folder in options.folders:
        space, found = stored(folder)
        others = list(found)
        if options.source is not None:
            other_space, more = stored(options.source)
            if other_space.digest != space.digest:
                raise UserError(f"{options.source} is of another space than {folder}")
            others = more
        for measured in found:
            rows = list(trials(space, measured, others, options.sizes, options.repeats))
            if not rows:
                continue
            about = {"folder": str(folder), "device": measured.device, "mode": measured.mode}
            results += [{**about, "workload": measured.workload, **row} for row in rows]
            print(f"{folder}: {measured.workload}, {measured.mode}, device {measured.device}")
            print(show(rows), end="\n\n", flush=True)
    if not results:
        raise UserError("no device has enough whole subnets; measure more, or lower --sizes")
    print(write_results("predictor-choice", {"results": results}))


if __name__ == "__main__":
    main()
