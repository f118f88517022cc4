"""`nas run`, killed with SIGKILL at random moments and started again, against one left alone.

First one run is left alone; it takes T seconds. Then, in a fresh directory each, a run is killed
at a moment drawn evenly between 0.05 T and 0.95 T (every fourth one is killed once more after that)
and started again until it ends. Then as many `--aimed` rounds, in which a run is killed shortly
after each stage has left its file: stages that are short would hardly be hit by chance. What must
hold:

- The supernet has the hash of the run that was left alone.
- Whatever was finished when it was killed is there afterwards as it was: sessions, evaluations,
  files. No evaluation and no session is there twice, and a stage that was finished does nothing.
- Same front, bit for bit. Latencies differ from one measurement to the next, so the run to compare
  with is a twin: a fresh directory that has the measurements of the killed run (its database
  without evaluations, and the exported graphs) and nothing else, where `nas run` is left alone. It
  trains, searches and exports by itself, must measure nothing, and must give `table.json`,
  `search.json`, `front.json` and every exported file byte for byte.

The exit code is 1 if one of these fails; the directories of a failure are kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import FOLDER, table, write_results
from benchmarks.snapshot import Snapshot, snapshot

CONFIG = """\
name: kill
seed: 0
output: {output}
device: cpu-1t
task: {{kind: image-classification, data: digits, batch_size: 32}}
space: {{patch_size: 4, head_dim: 8, embed: [32], depth: {depth}, heads: {heads}, ffn: {ffn}}}
training: {{steps: {steps}, warmup_steps: 2, threads: 1, checkpoint_every_s: 0.5, log_every: 10}}
latency: {{mode: quick, correction_subnets: {correction}}}
search: {{budget: {budget}, population: 10, front_size: {front}}}
"""
SIZES = {
    False: {
        "depth": [1, 2, 3],
        "heads": [1, 2],
        "ffn": [32, 64],
        "steps": 300,
        "correction": 2,
        "budget": 60,
        "front": 4,
    },
    True: {
        "depth": [1, 2],
        "heads": [1],
        "ffn": [32],
        "steps": 20,
        "correction": 0,
        "budget": 4,
        "front": 2,
    },
}
"""The configuration's numbers; True is the smoke test's."""

SAME_FILES = ("table.json", "search.json", "front.json")
KILL_AGAIN_EVERY = 4
AIMED = (
    ("training.jsonl", 3.0),
    ("supernet.json", 3.0),
    ("table.json", 1.0),
    ("search.json", 8.0),
    ("front.json", 0.5),
)
"""A file, and within how many seconds after it a run is killed."""
LIMIT_S = 1800.0
"""A run that takes longer hangs."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When to kill."""

    seconds: float
    after: str | None = None
    """Count from when this file of the run directory appears; None from the start."""

    def __str__(self) -> str:
        return f"{self.seconds:.1f}" if self.after is None else f"{self.after} + {self.seconds:.1f}"


class Command:
    """`nas run` in its own process group."""

    def __init__(self, config: Path, output: Path) -> None:
        self.output = output
        with (output.parent / f"{output.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nas", "run", str(config), f"output={output}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_at(self, moment: Moment) -> bool:
        """SIGKILL the whole group at that moment; False if it had ended by itself."""
        if moment.after is not None:
            while not (self.output / moment.after).exists() and self.process.poll() is None:
                time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(moment.seconds)
            return False
        self._kill()
        return True

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self._kill()

    def _kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def progress_checks(before: Snapshot, after: Snapshot) -> dict[str, bool]:
    """What was finished before a kill is as it was, and was not done again."""
    new_sessions = set(after.sessions) - set(before.sessions)
    new_evaluations = len(after.evaluations) - len(before.evaluations)
    keys = [key for key, _ in after.evaluations]
    known = dict(after.evaluations)
    checks = {
        "sessions are as they were": all(
            after.sessions.get(name) == row for name, row in before.sessions.items()
        ),
        "evaluations are as they were": all(
            known.get(key) == row for key, row in before.evaluations
        ),
        "no evaluation twice": len(keys) == len(set(keys)),
        "finished files are there": before.files - {"training.safetensors"}
        <= after.files | {name for name in before.files if name.startswith((".", "run.db-"))},
    }
    if before.supernet is not None:
        checks["not trained again"] = (
            after.supernet == before.supernet and after.weights_ns == before.weights_ns
        )
    if "table.json" in before.files:
        checks["no block measured again"] = not new_sessions & after.chain_sessions
    if "search.json" in before.files:
        checks["search evaluated nothing again"] = not any(
            split == "validation" for _, split, _ in keys[len(keys) - new_evaluations :]
        )
    if "front.json" in before.files:
        checks["nothing was done again"] = not new_sessions and not new_evaluations
    return checks


def make_twin(killed: Path, twin: Path) -> None:
    """A fresh run directory with the measurements of another one."""
    twin.mkdir()
    shutil.copytree(killed / "graphs", twin / "graphs")
    with (
        closing(sqlite3.connect(killed / "run.db")) as source,
        closing(sqlite3.connect(twin / "run.db")) as target,
    ):
        source.backup(target)
        target.execute("DELETE FROM evaluations")
        target.commit()


def twin_checks(killed: Path, twin: Path, after: Snapshot) -> dict[str, bool]:
    """The twin gives the same files, and measured nothing."""
    alone = snapshot(twin)
    checks = {
        "the twin measured nothing": set(alone.sessions) == set(after.sessions),
        "the twin has the supernet": alone.supernet == after.supernet,
        "the twin evaluated the same": [key for key, _ in sorted(alone.evaluations)]
        == [key for key, _ in sorted(after.evaluations)],
    }
    for name in SAME_FILES:
        checks[f"same {name}"] = (killed / name).read_bytes() == (twin / name).read_bytes()
    exports = sorted(path.name for path in (killed / "exports").iterdir())
    checks["same exports"] = exports == sorted(
        path.name for path in (twin / "exports").iterdir()
    ) and all(
        (killed / "exports" / name).read_bytes() == (twin / "exports" / name).read_bytes()
        for name in exports
    )
    return checks


def one_kill(
    folder: Path, config: Path, *, moments: Sequence[Moment], alone: Snapshot
) -> dict[str, Any] | None:
    """Kill one run at each of the moments, let it end, and check it; None if it was too fast."""
    killed, twin = folder / "killed", folder / "twin"
    folder.mkdir(parents=True)
    before: list[Snapshot] = []
    stages = []
    for moment in moments:
        command = Command(config, killed)
        if not command.kill_at(moment):
            stages.append(f"ended before, exit code {command.process.returncode}")
            break
        before.append(snapshot(killed))
        stages.append(before[-1].stage)
    if not before and command.process.returncode == 0:
        return None
    result: dict[str, Any] = {
        "moments": [str(moment) for moment in moments],
        "stages": stages,
        "sessions_at_kill": [len(state.sessions) for state in before],
        "evaluations_at_kill": [len(state.evaluations) for state in before],
    }
    checks = {
        "no other end": command.process.returncode in (0, -signal.SIGKILL),
        "exit code 0": Command(config, killed).finish() == 0,
    }
    if checks["exit code 0"]:
        after = snapshot(killed)
        checks["same supernet"] = after.supernet == alone.supernet
        states = [*before, after]
        for earlier, later in pairwise(states):
            for name, held in progress_checks(earlier, later).items():
                checks[name] = checks.get(name, True) and held
        make_twin(killed, twin)
        checks["the twin's exit code 0"] = Command(config, twin).finish() == 0
        if checks["the twin's exit code 0"]:
            checks |= twin_checks(killed, twin, after)
    result["checks"] = checks
    result["failed"] = [name for name, held in checks.items() if not held]
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--aimed",
        type=int,
        default=1,
        help=f"rounds of {len(AIMED)} kills that are aimed at stages",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--smoke", action="store_true", help="a tiny run with one kill")
    options = parser.parse_args(argv)
    name = "kill-smoke" if options.smoke else "kill"
    kills, aimed = (1, 0) if options.smoke else (options.kills, options.aimed)
    root = (FOLDER / name).absolute()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    config = root / "config.yaml"
    config.write_text(CONFIG.format(output=root / "run", **SIZES[options.smoke]))
    rng = np.random.default_rng(options.seed)

    started_s = time.monotonic()
    code = Command(config, root / "alone").finish()
    alone_s = time.monotonic() - started_s
    if code:
        sys.exit(f"the run that was left alone ended with exit code {code}; see {root}/alone.log")
    alone = snapshot(root / "alone")
    print(f"left alone: {alone_s:.1f} s, {len(alone.sessions)} sessions, ", end="")
    print(f"{len(alone.evaluations)} evaluations", flush=True)

    results: list[dict[str, Any]] = []
    too_fast, passed, written = 0, False, FOLDER / f"{name}.json"
    while len(results) < kills + aimed * len(AIMED) and too_fast <= kills:
        index = len(results)
        if index < kills:
            times = 2 if index % KILL_AGAIN_EVERY == KILL_AGAIN_EVERY - 1 else 1
            drawn = rng.uniform(0.05 * alone_s, 0.95 * alone_s, times)
            moments = [Moment(seconds=float(seconds)) for seconds in drawn]
        else:
            after, within_s = AIMED[(index - kills) % len(AIMED)]
            moments = [Moment(seconds=float(rng.uniform(0, within_s)), after=after)]
        folder = root / f"{index:02d}"
        result = one_kill(folder, config, moments=moments, alone=alone)
        if result is None:
            too_fast += 1
            shutil.rmtree(folder)
            continue
        results.append(result)
        if not result["failed"]:
            shutil.rmtree(folder)
        print(_line(index, result), file=sys.stderr, flush=True)
        passed = len(results) == kills + aimed * len(AIMED) and not any(
            result["failed"] for result in results
        )
        written = write_results(
            name, {"passed": passed, "alone_s": alone_s, "too_fast": too_fast, "kills": results}
        )
    rows = []
    for index, result in enumerate(results):
        rows.append(
            [
                f"{index:02d}",
                ", ".join(result["moments"]),
                ", ".join(result["stages"]),
                str(max(result["sessions_at_kill"], default=0)),
                str(max(result["evaluations_at_kill"], default=0)),
                "; ".join(result["failed"]) or f"all {len(result['checks'])} checks held",
            ]
        )
    print(table(["kill", "at s", "in stage", "sessions", "evaluations", "result"], rows))
    print(f"\n{len(results)} runs killed, {too_fast} were over before: ", end="")
    print("passed" if passed else f"FAILED, see {FOLDER / name}")
    print(written)
    sys.exit(0 if passed else 1)


def _line(index: int, result: dict[str, Any]) -> str:
    return f"kill {index}: {', '.join(result['stages'])}: {'; '.join(result['failed']) or 'ok'}"


if __name__ == "__main__":
    main()
