"""What every way to a device offers, and the ways in which it can fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from latency.artifact import Artifact
from latency.timing import TimingConfig


@dataclass(frozen=True, kw_only=True)
class Block:
    """One model run again and again without pause, in one place of a session."""

    round: int
    """Round of the session; -1 before the first (anchor only), `rounds` after the last."""
    position: int
    """Place in the order of the whole session, from 0."""
    count: int
    """Runs that the figures are taken from."""
    median_ns: float
    low_quartile_ns: float
    samples_ns: tuple[int, ...]
    """Runs in order of time; evenly thinned where there were many."""
    preempted: int = 0
    """Runs left out because another process took the core; 0 where all were like that."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What one session says of one model."""

    sha256: str
    blocks: tuple[Block, ...]
    max_abs_difference: float
    """Largest |output - reference|."""
    session: Mapping[str, object] = field(default_factory=dict)
    """JSON-able facts of the process, the same for all models of a session: pid, threads,
    affinity, governor, load, clocks and temperature before and after, versions."""


class BackendError(Exception):
    """A session that gave no latencies."""


class DeviceLostError(BackendError):
    """The link or the process died; the caller may retry.

    `sha256` is the model that was in work, where that is known.
    """

    def __init__(self, message: str, sha256: str | None = None) -> None:
        super().__init__(message)
        self.sha256 = sha256


class SessionTimeoutError(BackendError):
    """A session took too long; `sha256` is the model that was in work, where that is known."""

    def __init__(self, message: str, sha256: str | None = None) -> None:
        super().__init__(message)
        self.sha256 = sha256


class ModelRejectedError(BackendError):
    """The runtime refused models or they gave wrong outputs; final, never retried.

    `reasons` gives a line per refused model (SHA-256); the others of the session are fine.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{sha[:12]}: {why}" for sha, why in reasons.items()))
        self.reasons = dict(reasons)


class DeviceBackend(Protocol):
    """One way to run a model on one device.

    Every implementation passes `tests/latency/contract.py`.
    """

    name: str

    def fingerprint(self) -> Mapping[str, str]:
        """All that may change a latency: SoC, clocks, governor, runtime, driver, flags."""

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; `models[0]` is the anchor.

        Returns:
            Samples in the order of `models`: `timing.rounds` blocks each, and for the anchor
            blocks before (round -1) and after (round `timing.rounds`) them too.

        Raises:
            DeviceLostError: The link or the process died; the caller may retry.
            ModelRejectedError: The runtime refused a model; final, never retried.
            SessionTimeoutError: Longer than 30 s and 10 times the estimate.
            UserError: The device profile does not fit this machine.
        """
