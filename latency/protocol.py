"""The measuring protocol: sessions until every candidate has its interval, or has had enough.

The process, not the sample, is the unit of repetition: on a busy machine the medians of fresh
processes differ by percents where the interval within one process says 0.2 %. And what a
session says of a candidate is its ratio to the anchor, timed in interleaved blocks: the state
of the machine cancels. What a session did to all its candidates alike is the anchor's own error
in that process: it is taken out as well (`latency.session_effects`). Latency = ratio times the
anchor's baseline, which is fixed once for a device, so that results of different days add up.

Every session is stored in one transaction. A restart counts what is stored under (fingerprint,
protocol version, mode, model) and does only what is missing.
"""

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from latency.artifact import Artifact
from latency.backend import (
    DeviceBackend,
    DeviceLostError,
    ModelRejectedError,
    SessionTimeoutError,
)
from latency.calm import LIMIT
from latency.lease import device_lease
from latency.measurement import Measurement, final_failure, precise, summarize
from latency.session_effects import ModelSessions, accepted, without_session_effects
from latency.session_record import failed_session, timed_session, utc_now
from latency.store import Baseline, History, LatencyStore, SessionRecord
from latency.timing import TimingConfig
from search_spaces.errors import UserError

PROTOCOL_VERSION = 1
"""Raised with every change that makes new ratios incomparable with stored ones."""

Progress = Callable[[float, int, str], None]
"""Called with (artifacts done, an unfinished one as a part; artifacts in all; a line of text)."""
UNFINISHED = 0.9
"""An artifact that has its least sessions, and needs more, counts as so much done."""

Key = tuple[str, str]
Group = tuple[Artifact, ...]


def measure(
    groups: Sequence[Artifact | Sequence[Artifact]],
    *,
    backend: DeviceBackend,
    timing: TimingConfig,
    store: LatencyStore,
    progress: Progress | None = None,
    lease: str = "host",
) -> dict[str, Measurement]:
    """Measure artifacts on a device, or take from the store what is there already.

    Args:
        groups: Artifacts, or sequences of artifacts that must share their sessions (chains whose
            difference counts: use the `session_ratios` that both have). At most
            `timing.candidates_per_session` in one.
        backend: The device.
        timing: Mode and numbers. Standard results in the store satisfy a quick request.
        store: Where sessions are counted and put.
        progress: Told what happens.
        lease: The physical device; one measurement at a time on each.

    Returns:
        A measurement per SHA-256 of the artifacts' models. Failures are states, not errors.

    Raises:
        ValueError: A group is too large, or one file is asked for with two input shapes.
        UserError: The provider is missing, the anchor fails, the disk is full.
    """
    normal = _groups(groups, timing)
    return _Run(normal, backend, timing, store, progress).measurements(lease)


def _groups(groups: Sequence[Artifact | Sequence[Artifact]], timing: TimingConfig) -> list[Group]:
    normal = [(g,) if isinstance(g, Artifact) else tuple(g) for g in groups]
    signatures: dict[str, str] = {}
    for group in normal:
        if len(group) > timing.candidates_per_session:
            raise ValueError(
                f"a group of {len(group)} artifacts does not fit in a session of "
                f"{timing.candidates_per_session}; split it"
            )
        for artifact in group:
            if signatures.setdefault(artifact.sha256, artifact.signature) != artifact.signature:
                raise ValueError(
                    f"{artifact.path.name} is asked for with two input shapes, "
                    f"{signatures[artifact.sha256]} and {artifact.signature}; measure them apart"
                )
    return normal


class _Run:
    """One call of `measure`."""

    def __init__(
        self,
        groups: list[Group],
        backend: DeviceBackend,
        timing: TimingConfig,
        store: LatencyStore,
        progress: Progress | None,
    ) -> None:
        self.groups = groups
        self.backend = backend
        self.timing = timing
        self.store = store
        self.progress = progress
        self.artifacts = {artifact.key: artifact for group in groups for artifact in group}
        self.device = store.add_device(backend.fingerprint())
        self.losses: dict[Key | None, int] = {}
        self.hot_in_a_row = 0
        self.anchors_ns: list[float] = []
        self.history: Mapping[Key, ModelSessions] = {}
        self.standard: Mapping[Key, ModelSessions] = {}

    def measurements(self, lease: str) -> dict[str, Measurement]:
        self._read()
        if any(not self._finished(group) for group in self.groups):
            with ExitStack() as stack:
                stack.enter_context(device_lease(lease, notify=self._tell))
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                anchor = self.backend.anchor(Path(folder))
                self._read()  # whoever held the lease before may have measured the same
                while pending := [group for group in self.groups if not self._finished(group)]:
                    self._session(anchor, self._choose(pending))
        return self._results()

    def _read(self) -> None:
        self.history = self._stored(self.timing.mode)
        if self.timing.mode == "quick":
            self.standard = self._stored("standard")

    def _stored(self, mode: str) -> Mapping[Key, ModelSessions]:
        history = self.store.history(self.device, PROTOCOL_VERSION, mode)
        return without_session_effects(history, self.artifacts)

    def _of(self, artifact: Artifact) -> Sequence[History]:
        return self.history[artifact.key].entries

    def _precise(self, artifact: Artifact) -> bool:
        return precise(self.history[artifact.key], self.timing)

    def _by_standard(self, artifact: Artifact) -> bool:
        """Whether stored standard sessions already answer a quick request."""
        if artifact.key not in self.standard:
            return False
        sessions, rules = self.standard[artifact.key], TimingConfig.standard()
        return final_failure(sessions.entries, rules) is not None or precise(sessions, rules)

    def _open(self, group: Group) -> list[Artifact]:
        """Members that can still be timed."""
        return [
            a
            for a in group
            if self._final(a) is None and self.losses.get(a.key, 0) <= self.timing.lost_retries
        ]

    def _final(self, artifact: Artifact) -> str | None:
        return final_failure(self._of(artifact), self.timing)

    def _finished(self, group: Group) -> bool:
        if all(self._by_standard(artifact) for artifact in group):
            return True
        members = self._open(group)
        if not members or self.losses.get(None, 0) > self.timing.lost_retries:
            return True
        shared = self._shared(members)
        if sum(outcome in ("accepted", "drift") for outcome in shared) >= self.timing.max_sessions:
            return True
        if shared.count("accepted") < self.timing.min_sessions:
            return False
        return all(self._precise(artifact) for artifact in members)

    def _shared(self, members: Sequence[Artifact]) -> list[str]:
        """Outcomes of the sessions that timed all of `members`."""
        timed = [{e.session_id: e for e in self._of(a) if e.status == "ok"} for a in members]
        common = set.intersection(*(set(entries) for entries in timed))
        return [entry.outcome for entry in timed[0].values() if entry.session_id in common]

    def _choose(self, pending: list[Group]) -> list[Artifact]:
        """Candidates of the next session: groups with the fewest sessions first, else at random.

        So each candidate's sessions are spread over the whole time and over changing company.
        """
        shuffler = random.Random(self._seed())
        order = shuffler.sample(pending, len(pending))
        order.sort(key=lambda group: len(self._shared(self._open(group))))
        chosen: dict[Key, Artifact] = {}
        for group in order:
            more = {a.key: a for a in self._open(group)} | chosen
            if len(more) <= self.timing.candidates_per_session:
                chosen = more
        return list(chosen.values())

    def _seed(self) -> int:
        return self.timing.seed + self.store.count_sessions(self.device)

    def _session(self, anchor: Artifact, candidates: list[Artifact]) -> None:
        """Run one session and store what became of it."""
        baseline = self.store.current_baseline(self.device, PROTOCOL_VERSION)
        timing = self._session_timing(baseline)
        models = [anchor, *candidates]
        about = {
            "session_id": uuid.uuid4().hex,
            "seed": timing.seed,
            "started_at": utc_now(),
            "timing": asdict(timing),
        }
        pause_s = 0.0
        try:
            samples = self.backend.run_session(models, timing)
        except ModelRejectedError as error:
            if reason := error.reasons.get(anchor.sha256):
                raise UserError(
                    f"the anchor model fails on {self.backend.name}: {reason}; "
                    "run `nas doctor` to see what is missing"
                ) from None
            record = failed_session(about, models, "rejected", error.reasons, str(error))
            self._store(record)
        except SessionTimeoutError as error:
            self._failed("timeout", error.sha256, str(error), about, models)
        except DeviceLostError as error:
            self._failed("lost", error.sha256, str(error), about, models)
        else:
            self.losses.pop(None, None)
            calm_ns = baseline.anchor_ns if baseline and baseline.sessions else None
            record = timed_session(about, models, samples, timing, calm_ns=calm_ns)
            if record.hot and record.outcome == "accepted":
                if self.hot_in_a_row < timing.sentinel_retries:
                    record = replace(record, outcome="hot")
                    pause_s = timing.cooldown_s
                self.hot_in_a_row += 1
            elif not record.hot:
                self.hot_in_a_row = 0
            if record.anchor_ns is not None:
                self.anchors_ns.append(record.anchor_ns)
            self._store(record)
        time.sleep(pause_s)

    def _failed(
        self,
        outcome: str,
        sha256: str | None,
        message: str,
        about: Mapping[str, object],
        models: Sequence[Artifact],
    ) -> None:
        """Store a session that was lost or too long; count it against the model in work."""
        culprit = next((m for m in models[1:] if m.sha256 == sha256), None)
        # Nobody to blame for a timeout: then it is the device that hangs
        outcome = "lost" if culprit is None else outcome
        reasons = {} if culprit is None else {culprit.sha256: message}
        self._store(failed_session(about, models, outcome, reasons, message))
        if outcome == "lost":
            blamed = None if culprit is None else culprit.key
            count = self.losses[blamed] = self.losses.get(blamed, 0) + 1
            if count <= self.timing.lost_retries:
                # Jitter: several clients that lost one device must not come back as one
                jitter = random.uniform(0.5, 1.5)
                time.sleep(self.timing.backoff_s * 2 ** (count - 1) * jitter)

    def _session_timing(self, baseline: Baseline | None) -> TimingConfig:
        """The timing of the next session: what is stored alone decides, so a restart repeats it."""
        if baseline is None:
            return self.timing.of_session(self._seed())
        # Half the patience after each session for which waiting did not help
        limit_ns = LIMIT * baseline.anchor_ns
        slow = self.store.slow_in_a_row(self.device, PROTOCOL_VERSION, limit_ns)
        timing = self.timing.of_session(self._seed(), baseline.anchor_ns)
        return replace(timing, patience=timing.patience / 2**slow)

    def _store(self, record: SessionRecord) -> None:
        self.store.add_session(self.device, PROTOCOL_VERSION, self.timing.mode, record)
        self._read()
        note = f": {record.message}" if record.message else ""
        self._tell(f"session of {len(record.models) - 1} models {record.outcome}{note}")

    def _tell(self, line: str) -> None:
        if self.progress is not None:
            done = sum(self._share(artifact) for artifact in self.artifacts.values())
            self.progress(done, len(self.artifacts), line)

    def _share(self, artifact: Artifact) -> float:
        """How much of an artifact's measurement is done: every session counts."""
        if self._finished((artifact,)):
            return 1.0
        counted = len(accepted(self._of(artifact)))
        return UNFINISHED * min(1.0, counted / self.timing.min_sessions)

    def _results(self) -> dict[str, Measurement]:
        baseline = self.store.fix_baseline(self.device, PROTOCOL_VERSION)
        if baseline is not None and self.anchors_ns:
            faster = baseline.anchor_ns / median(self.anchors_ns)
            if faster > self.timing.sentinel_limit:
                self._tell(
                    f"the device is {faster:.2f} times faster than when its baseline was taken: "
                    "stored milliseconds are too many by that, their ratios right; "
                    "measure into a new run directory for new ones"
                )
        results = {}
        for artifact in self.artifacts.values():
            sessions, rules = self.history[artifact.key], self.timing
            if self._by_standard(artifact):
                sessions, rules = self.standard[artifact.key], TimingConfig.standard()
            lost = self.losses.get(artifact.key, 0) > self.timing.lost_retries or (
                self.losses.get(None, 0) > self.timing.lost_retries and not precise(sessions, rules)
            )
            results[artifact.sha256] = summarize(artifact.sha256, sessions, rules, baseline, lost)
        return results
