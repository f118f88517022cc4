"""Faults on the way to a device behind SSH: no wrong row, no duplicate, nothing finished is lost.

The device is this host behind a real sshd (asyncssh where there is none), with the agent in a
virtual environment of its own and a proxy before it. A process measures small models over it and
again and again something goes wrong, one of KINDS drawn at random: the proxy cuts the link,
stalls it, flips a bit, puts bytes in, or holds them up; the agent's output gets garbage; the agent,
its worker, the process that times, or the measuring process of this host is killed. A process that
ends early is started again with the same command.

A witness reads every result that the agent writes. What must hold at the end of each round:

- Every model has its sessions, exactly as many as were asked for.
- No session of the device is in the store twice.
- Every row holds what the witness saw of that session, sample by sample.
- Every session that the device finished is in the store.

Then the same table is measured twice: undisturbed, and with 30 % of the sessions killed. Its rows
must agree within their intervals.

The exit code is 1 if one of these fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.lost_sessions import compare_tables, show
from benchmarks.results import FOLDER, table, write_results
from benchmarks.witness import Witness, digest, session_key
from latency.artifact import Artifact, load_artifact
from latency.database import connect
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.protocol import measure
from latency.remote_host import RemoteHost
from latency.ssh import SshTransport
from latency.store import LatencyStore
from latency.timing import TimingConfig
from tests.latency.remote_device import (
    SSHD,
    Device,
    FaultProxy,
    make_interpreter,
    remote_device,
    serve_ssh,
)

KILLS = {"agent killed": "serve", "worker killed": "work", "session killed": "session"}
KINDS = (*FaultProxy.KINDS, "babble", *KILLS, "host killed")
SESSIONS = 4
"""Sessions that every model needs."""
MODELS = 6
FIRE_S = 8.0
"""A fault that has not happened in so long is given up and not counted."""
FAULTS_PER_SESSION = 4
"""After so many faults a session is let through: a link on which nothing passes proves little."""

TIMING = TimingConfig(
    mode="quick",
    min_sessions=SESSIONS,
    max_sessions=SESSIONS,
    rounds=3,
    block_ms=5.0,
    warmup_s=0.05,
    interval_target=100.0,
    drift_limit=100.0,
    sentinel_limit=100.0,
    candidates_per_session=2,
    backoff_s=0.1,
)


def child(settings: Path) -> None:
    """Measure until all is done; exit code 3 if the device was set aside."""
    given = json.loads(settings.read_text())
    place = RemoteHost(SshTransport(**given["transport"]), **given["place"])
    backend = OnnxRuntimeBackend(threads=1, place=place)
    store = LatencyStore(connect(Path(given["database"])))
    models = [load_artifact(Path(path)) for path in given["models"]]
    with closing(backend):
        timing = TIMING.of_session(given["seed"])
        found = measure(models, backend=backend, timing=timing, store=store, lease=given["lease"])
    sys.exit(0 if all(one.status == "ok" for one in found.values()) else 3)


class Round:
    """One store filled over a failing link."""

    def __init__(self, folder: Path, device: Device, models: Sequence[Artifact], seed: int) -> None:
        folder.mkdir(parents=True)
        self.device, self.models, self.database = device, models, folder / "run.db"
        self.settings, self.log = folder / "settings.json", folder / "log"
        port = device.proxy.port
        self.settings.write_text(
            json.dumps(
                {
                    "transport": {
                        "host": "127.0.0.1",
                        "port": port,
                        "identity": device.server.identity,
                        "known_hosts": device.server.known_hosts(port),
                        "python": str(device.babbler()),
                    },
                    "place": {
                        "folder": str(device.folder),
                        "silence_s": 6.0,
                        "pause_s": 0.05,
                    },
                    "database": str(self.database),
                    "models": [str(model.path) for model in models],
                    "lease": f"faults-{port}",
                    "seed": seed,
                }
            )
        )
        self.starts = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults", "--child", str(self.settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finished(self) -> bool:
        """Whether all is measured; starts the process again if it ended early."""
        code = self.process.poll()
        if code is None or code == 0:
            return code == 0
        self.process = self._start()
        return False

    def inject(self, kind: str, rng: random.Random) -> bool:
        """Let one fault happen; whether it did."""
        device, after_bytes = self.device, int(10 ** rng.uniform(2, 4.7))
        if kind == "host killed":
            self.process.send_signal(signal.SIGKILL)
            return self.process.wait() == -signal.SIGKILL
        if kind in KILLS:
            return self._soon(lambda: device.kill(KILLS[kind]))
        if kind == "babble":
            device.babble(after_bytes)
            happened = self._soon(lambda: device.babbled)
            device.folder.with_name("babble").unlink(missing_ok=True)
            return happened
        fired = device.proxy.fired
        device.proxy.plan(kind, after_bytes)
        happened = self._soon(lambda: device.proxy.fired > fired)
        device.proxy.kind = None
        return happened

    def _soon(self, condition: Any) -> bool:
        end = time.monotonic() + FIRE_S
        while time.monotonic() < end and self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.01)
        return False

    def close(self) -> None:
        """End the measuring process if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def failures(self, witness: Witness) -> list[str]:
        """What does not hold of this round."""
        with closing(connect(self.database)) as connection:
            rows = connection.execute(
                "SELECT s.session_id, s.facts, m.sha256, m.blocks FROM latency_sessions s"
                " JOIN latency_samples m USING (number) WHERE s.outcome = 'accepted'"
            ).fetchall()
        failures = []
        sessions: dict[str, set[str]] = {}
        counts: Counter[str] = Counter()
        for session_id, facts, sha256, blocks in rows:
            key = session_key(json.loads(facts))
            sessions.setdefault(key, set()).add(session_id)
            counts[sha256] += 1
            seen = witness.seen.get(key, {}).get(sha256)
            if seen != digest(json.loads(blocks)):
                failures.append("wrong row" if seen else "a row that the witness did not see")
        failures += ["duplicate" for names in sessions.values() if len(names) > 1]
        failures += [f"lost session {key}" for key in witness.seen if key not in sessions]
        for model in self.models:
            if counts[model.sha256] != SESSIONS:
                failures.append(f"{counts[model.sha256]} sessions of a model, not {SESSIONS}")
        return failures


def run_rounds(
    folder: Path, device: Device, models: Sequence[Artifact], *, faults: int, seed: int
) -> dict[str, Any]:
    """Inject faults until there were `faults`, each round into a fresh store."""
    rng = random.Random(seed)
    happened: Counter[str] = Counter()
    failures: list[str] = []
    rounds = starts = sessions = 0
    while happened.total() < faults:
        witness = Witness(device.folder)
        current = Round(folder / f"{rounds:03d}", device, models, seed=1000 * rounds)
        try:
            before, finished = happened.total(), 0
            while not current.finished():
                time.sleep(rng.uniform(0, 0.4))
                if len(witness.seen) > finished:
                    before, finished = happened.total(), len(witness.seen)
                if happened.total() >= min(faults, before + FAULTS_PER_SESSION):
                    continue
                # Each kind as often as the others
                fewest = min(happened[kind] for kind in KINDS)
                kind = rng.choice([kind for kind in KINDS if happened[kind] <= fewest + 1])
                happened[kind] += current.inject(kind, rng)
            time.sleep(0.05)
            found = current.failures(witness)
        finally:
            witness.close()
            current.close()
        rounds += 1
        starts += current.starts
        sessions += len(witness.seen)
        failures += found
        print(
            f"round {rounds}: {happened.total()} faults so far, {len(witness.seen)} sessions, "
            f"{current.starts} starts: {'; '.join(found) or 'ok'}",
            file=sys.stderr,
            flush=True,
        )
    return {
        "faults": dict(happened),
        "rounds": rounds,
        "starts": starts,
        "sessions": sessions,
        "failures": failures,
    }


def write_models(folder: Path) -> list[Artifact]:
    """Small models of different sizes."""
    from latency.anchor import build_anchor

    return [build_anchor(folder, layers=layers) for layers in (1, *range(3, MODELS + 2))]


def main(argv: Sequence[str] | None = None) -> None:
    """Print what happened and what held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--lost", type=float, default=0.3, help="share of killed sessions; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child is not None:
        child(options.child)
    root = (FOLDER / "faults").absolute()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    models, python = write_models(root), make_interpreter(root / "venv")
    results: dict[str, Any] = {"server": "sshd" if SSHD else "asyncssh", "seed": options.seed}
    started_s = time.monotonic()
    with (
        serve_ssh(root / "server") as server,
        remote_device(root / "device", python, server) as device,
    ):
        results |= run_rounds(
            root / "rounds", device, models, faults=options.faults, seed=options.seed
        )
        results["seconds"] = time.monotonic() - started_s
        if options.lost:
            results["lost"] = compare_tables(
                root / "tables", device, share=options.lost, seed=options.seed
            )
        time.sleep(1)
        left = [kind for kind in ("serve", "work", "session") if device.processes(kind)]
        results["left_running"] = left
    print(table(["fault", "times"], [[kind, str(n)] for kind, n in results["faults"].items()]))
    print(
        f"\n{sum(results['faults'].values())} faults in {results['seconds']:.0f} s, "
        f"{results['rounds']} rounds, {results['sessions']} sessions, {results['starts']} starts: "
        f"{'; '.join(results['failures']) or 'no wrong row, no duplicate, none lost'}"
    )
    rows = results.get("lost", {}).get("rows", [])
    if rows:
        print(f"\n{show(results['lost'])}")
    passed = not results["failures"] and not left and all(row["agree"] for row in rows)
    print("\npassed" if passed else "\nFAILED")
    print(write_results("faults", {"passed": passed, **results}))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
