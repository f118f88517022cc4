"""A device profile: what to measure on and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latency.backends import BACKENDS
from latency.default_workloads import check_workloads
from latency.preparation import Preparation
from latency.remote_profile import check_transport
from search_spaces.errors import UserError

WITH_THREADS = ("onnxruntime", "torch")
"""Backends whose threads are of our choice; the others use their own device's."""


def is_device_name(text: str) -> bool:
    """Whether a device may be called that: files are named by it."""
    return bool(text) and all(c.isalnum() or c in "-_" for c in text)


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What to measure on and how: a name for a backend with its options."""

    name: str
    backend: str = "onnxruntime"
    threads: int = 1
    """Intra-op threads."""
    provider: str = "CPUExecutionProvider"
    """onnxruntime execution provider."""
    spinning: bool = True
    """Whether threads spin where they wait for others; see `OnnxRuntimeBackend`."""
    affinity: Sequence[int] | None = field(default=None, hash=False)
    """CPUs that sessions are pinned to; by default the scheduler chooses."""
    prepare: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else is done before each session; see `latency.preparation.Preparation`."""
    precisions: Sequence[str] | None = field(default=None, hash=False)
    """Arithmetic that models may have on the device; by default all that its backend offers."""
    workloads: Mapping[str, Mapping[str, int]] = field(default_factory=dict, hash=False)
    """Calls by name, for runs that name none: batch, and sequence and past of language models."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Of onnxruntime's provider, by its own names; of another backend, see its class."""
    transport: str = "local"
    """`local`, or `ssh` for a device behind SSH."""
    host: str | None = None
    """Name or address of a device behind SSH."""
    port: int = 22
    """TCP port of its sshd."""
    user: str | None = None
    """Who to log in as; by default what ssh itself would take."""
    identity: str | None = None
    """File of the private key; by default what ssh itself would take."""
    known_hosts: str | None = None
    """File of known host keys, by default `~/.ssh/known_hosts`."""
    python: str | None = None
    """Interpreter that has the runtime: on a device behind SSH (by default `python3`), or
    another one of this host."""
    folder: str = "~/.cache/elastic-nas"
    """Where the agent and its cache lie, for a device behind SSH or an interpreter of its own."""

    def __post_init__(self) -> None:
        """Check types and values.

        Raises:
            UserError: One of them is wrong.
        """
        for name in ("name", "backend", "provider"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UserError(f"{name} {value!r} of a device profile is not a text; set it")
        if not is_device_name(self.name):
            raise UserError(f"device name {self.name!r}: use letters, digits, - and _ only")
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1:
            raise UserError(
                f"threads {self.threads!r} of device {self.name} is not a whole number of at "
                "least 1"
            )
        if not isinstance(self.spinning, bool):
            raise UserError(f"spinning {self.spinning!r} of device {self.name}: true or false")
        check_transport(self)
        if self.backend not in BACKENDS:
            raise UserError(
                f"backend {self.backend!r} of device {self.name} is not one of "
                f"{', '.join(sorted(BACKENDS))}"
            )
        for name, given, backends in (
            ("provider", self.provider != "CPUExecutionProvider", ("onnxruntime",)),
            ("spinning", not self.spinning, ("onnxruntime",)),
            ("threads", self.threads != 1, WITH_THREADS),
        ):
            if given and self.backend not in backends:
                raise UserError(
                    f"{name} {getattr(self, name)!r} of device {self.name} is for backend "
                    f"{' and '.join(backends)}, not {self.backend}; remove it"
                )
        if not isinstance(self.options, dict) or not all(isinstance(k, str) for k in self.options):
            raise UserError(
                f"options {self.options!r} of device {self.name} is not a mapping; "
                "write `options:` with `name: value` lines below it"
            )
        try:
            pinned = self.preparation.affinity
        except UserError as error:
            raise UserError(f"device {self.name}: {error}") from None
        if pinned is not None and self.threads > len(pinned):
            raise UserError(
                f"threads {self.threads} of device {self.name} are more than the "
                f"{len(pinned)} CPUs of its affinity {list(pinned)}; change one of them"
            )
        self._check_precisions()
        check_workloads(self.name, self.workloads)

    def _check_precisions(self) -> None:
        known, given = BACKENDS[self.backend].precisions, self.precisions
        if given is None:
            return
        if not isinstance(given, list | tuple) or not given:
            raise UserError(
                f"precisions {given!r} of device {self.name} is not a list; write [{known[0]}], say"
            )
        for one in given:
            if one not in known:
                raise UserError(
                    f"precision {one!r} of device {self.name} is not one of {', '.join(known)}, "
                    f"which backend {self.backend} offers"
                )

    @property
    def offered(self) -> tuple[str, ...]:
        """Arithmetic that models may have on the device."""
        given = self.precisions
        return BACKENDS[self.backend].precisions if given is None else tuple(given)

    @property
    def spins(self) -> bool:
        """Whether threads really spin: those of onnxruntime, but never a single one."""
        return self.spinning and self.threads > 1 and self.backend == "onnxruntime"

    @property
    def preparation(self) -> Preparation:
        """What is done to the device before each session."""
        return Preparation.of_profile(self.affinity, self.prepare)

    @property
    def lease(self) -> str:
        """The physical device, on which one measurement runs at a time."""
        return self.host if self.transport == "ssh" and self.host else "host"

    @property
    def by_agent(self) -> bool:
        """Whether sessions run elsewhere: behind SSH, or in another interpreter of this host."""
        return self.transport == "ssh" or self.python is not None
