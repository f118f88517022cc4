"""What every way to a device offers, and the ways in which it can fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from latency.anchor import ANCHOR_LAYERS
from latency.artifact import Artifact
from latency.timing import TimingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from latency.place import Place
    from supernet.parts import Network


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
    energy_mj: float | None = None
    """Energy of one run, mJ, of all that the meter counts; None where the device does not tell."""
    peak_memory_bytes: float | None = None
    """Growth of the process's resident memory by loading and running it, at its peak; likewise."""
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
    """One way to make a network into a file and to run it, on this host or on another machine.

    Table entries, whole subnets and exports all go through `compile` and `run_session`. Every
    implementation passes `tests/latency/contract.py`.
    """

    name: str
    suffix: str
    """Suffix of its model files; `.onnx` files run with any batch, sequence and cache length,
    others with the shapes that they were compiled for."""
    tolerance: float
    """Allowed |output - reference| of its precision, in units of 1 + |reference|."""
    precisions: tuple[str, ...]
    """Arithmetic that it can make models in, by the names of schemes: `fp32`, `fp16`, ..."""
    precision: str
    """The one of these that it makes them in."""
    place: "Place"
    """The machine that its sessions run on."""

    def missing(self) -> str | None:
        """What its place lacks to run sessions, and how to get it; None where nothing is lacking.

        Quick: times nothing.
        """

    def fingerprint(self) -> Mapping[str, str]:
        """All that may change a latency: SoC, clocks, governor, runtime, driver, flags.

        Raises:
            UserError: The place cannot be reached, or has no such runtime or too few CPUs.
        """

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Its options, as keys of a device profile, from what `fingerprint` once said.

        Raises:
            KeyError, ValueError: It said no such thing.
        """

    def build_facts(self) -> Mapping[str, str]:
        """All that changes a model file: format, precision, compiler, target.

        Files are named and cached by it, and it is stored with every measurement of them.
        """

    def compile(
        self,
        network: "Network",
        feeds: "Mapping[str, Tensor]",
        path: Path,
        *,
        library: "GraphLibrary",
        facts: Mapping[str, object],
    ) -> None:
        """Write a network as the file that this backend runs, whole or not at all.

        Args:
            network: What to write; the weights of its modules go into the file.
            feeds: Example inputs; they say which shapes the file is for.
            path: The file; its folder is made.
            library: Exported parts.
            facts: Kept in the file where its format has room for them.

        Raises:
            UserError: The compiler is missing or refuses the network, or the disk is full.
        """

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The anchor as a file of this backend in `folder`; see `latency.anchor`.

        Raises:
            UserError: See `compile`.
        """

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; `models[0]` is the anchor.

        Returns:
            Samples in the order of `models`: `timing.rounds` blocks each, and for the anchor
            blocks before (round -1) and after (round `timing.rounds`) them too.

        Raises:
            DeviceLostError: The link or the process died; the caller may retry.
            ModelRejectedError: The runtime refused a model; final, never retried.
            SessionTimeoutError: Longer than 30 s and 10 times the estimate.
            UserError: The device profile does not fit the machine.
        """

    def close(self) -> None:
        """End the link to its place, if there is one; a later call begins anew."""
