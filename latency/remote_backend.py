"""A device that is not this host: sessions run there, by an agent."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from latency.artifact import Artifact
from latency.backend import DeviceLostError, ModelRejectedError, Samples
from latency.link import Link
from latency.outcome import samples_of
from latency.timing import TimingConfig
from latency.transport import LinkError, Transport
from search_spaces.errors import UserError

T = TypeVar("T")


class RemoteBackend:
    """onnxruntime on a device behind a transport, timed by the code that times on this host.

    A session has a name that follows from what it measures: models, feeds, numbers, seed, device.
    When the link is cut, the agent goes on, and asking for the same session again gives that
    result, also from another process of this host: nothing that was finished is measured twice.
    A result that was received is forgotten when the next session begins or at `close`.
    """

    name = "onnxruntime"

    def __init__(
        self,
        transport: Transport,
        *,
        threads: int,
        provider: str = "CPUExecutionProvider",
        spinning: bool = False,
        affinity: Sequence[int] | None = None,
        folder: str = "~/.cache/elastic-nas",
        silence_s: float = 20.0,
        link_retries: int = 5,
        pause_s: float = 0.2,
    ) -> None:
        """Describe the device and the runtime; connects to nothing.

        Args:
            transport: The way to the device.
            threads: Intra-op threads, at least 1.
            provider: Execution provider, asserted in every session.
            spinning: Whether idle threads spin.
            affinity: CPUs to pin a session to; None leaves the choice to the scheduler.
            folder: Where the agent and its cache lie on the device; `~` is the home there.
            silence_s: A link without a word for so long counts as cut.
            link_retries: New connections within one session before the device counts as lost.
            pause_s: First pause before such a connection; doubles each time, jittered by half.
        """
        self.transport = transport
        self.options = {
            "threads": threads,
            "provider": provider,
            "spinning": spinning,
            "affinity": None if affinity is None else sorted(affinity),
        }
        self.provider = provider
        self.folder = folder
        self.silence_s = silence_s
        self.link_retries = link_retries
        self.pause_s = pause_s
        self._link: Link | None = None
        self._description: dict[str, Any] | None = None
        self._received: str | None = None

    def fingerprint(self) -> Mapping[str, str]:
        """The device's own: processor, system, runtime and its options, and which board it is.

        Raises:
            UserError: The device cannot be reached, lacks onnxruntime, or has too few CPUs.
        """
        description = self.describe()
        self._check(description)
        return dict(description["fingerprint"])

    def describe(self) -> Mapping[str, Any]:
        """What the device says of itself; see `latency.agent.Agent.describe`.

        Raises:
            UserError: The device cannot be reached.
        """
        if self._description is None:
            try:
                self._retry(lambda link: None, retries=2)
            except DeviceLostError as error:
                raise UserError(
                    f"{error}; check that it is on and that its name is right"
                ) from None
        assert self._description is not None
        return self._description

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process there; see `DeviceBackend`.

        Raises:
            DeviceLostError: The device or its process died, or the link stayed cut.
            ModelRejectedError: onnxruntime refused a model, its outputs are wrong, or its file
                changed.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: Host key, user, runtime, provider, threads or space; see the message.
        """
        files = _Files(models)
        request = {"models": files.models, **self.options, **timing.request()}
        name = _name([request, self.fingerprint()])

        def session(link: Link) -> dict[str, Any]:
            if self._received is not None:
                link.call("forget", session=self._received)
                self._received = None
            missing = link.call("missing", files=list(files.paths))["missing"]
            for _ in range(3):
                for sha256 in missing:
                    link.put(sha256, files.content(sha256))
                reply = link.call(
                    "session",
                    session=name,
                    request=request,
                    timeout_s=timing.timeout_s(len(models)),
                )
                if "outcome" in reply:
                    return dict(reply["outcome"])
                missing = reply["missing"]  # damaged on the device's disk
            raise LinkError("files do not stay whole on the device's disk")

        outcome = self._retry(session, retries=self.link_retries)
        self._received = name
        samples = samples_of(outcome, self.provider)
        if [one.sha256 for one in samples] != [model.sha256 for model in models]:
            raise DeviceLostError(f"{self.transport.name} answered with other models")
        return samples

    def close(self) -> None:
        """Forget what was received and end the link; the agent removes itself, not its cache."""
        if self._link is not None and self._received is not None:
            try:
                self._link.call("forget", session=self._received)
                self._received = None
            except LinkError:
                pass  # removed there after a day
        self._drop()

    def clean(self) -> None:
        """Remove all that the agent keeps on the device, and the agent.

        Raises:
            UserError: As for `fingerprint`.
            DeviceLostError: The link stayed cut.
        """
        self.describe()
        self._retry(lambda link: link.call("clean"), retries=self.link_retries)
        self._received = None
        self._drop()

    def _retry(self, work: Callable[[Link], T], retries: int) -> T:
        """Do `work` on a link, on a new one where that fails."""
        for failures in range(retries + 1):
            try:
                return work(self._connected())
            except LinkError as error:
                self._drop(orderly=False)
                reason = str(error)
            except BaseException:
                self._drop(orderly=False)  # in the middle of a request, perhaps
                raise
            if failures < retries:
                time.sleep(min(5.0, self.pause_s * 2**failures) * random.uniform(0.5, 1.5))
        raise DeviceLostError(f"{self.transport.name} is lost: {reason}")

    def _connected(self) -> Link:
        if self._link is None:
            self._link = Link.connect(self.transport, folder=self.folder, silence_s=self.silence_s)
            self._learn(self._link)
        return self._link

    def _learn(self, link: Link) -> None:
        """Ask the device what it is, at every connection: it must not change while measured."""
        description = link.call("describe", options=self.options)
        if self._description is None:
            self._description = description
        old, new = self._description["fingerprint"], description["fingerprint"]
        for key in old:
            if old[key] != new.get(key):
                raise UserError(
                    f"{self.transport.name} changed while it was measured: {key} was {old[key]!r} "
                    f"and is {new.get(key)!r}; run the same command again for the device as it is"
                )

    def _check(self, description: Mapping[str, Any]) -> None:
        name, cpus = self.transport.name, description["cpus"]
        threads, affinity = self.options["threads"], self.options["affinity"]
        if description["runtime"] is None:
            raise UserError(
                f"{name} has no onnxruntime for Python {description['python']}; log in and run "
                "`python3 -m pip install onnxruntime` (in a virtual environment, whose "
                "interpreter is then python in the device profile)"
            )
        if not isinstance(threads, int) or not 1 <= threads <= len(cpus):
            raise UserError(f"threads {threads} is not in 1..{len(cpus)}, the CPUs of {name}")
        if isinstance(affinity, list) and not set(affinity) <= set(cpus):
            raise UserError(f"affinity {affinity} is not within the CPUs {cpus} of {name}")

    def _drop(self, *, orderly: bool = True) -> None:
        if self._link is not None:
            self._link.close(orderly=orderly)
            self._link = None


class _Files:
    """The files of a session by SHA-256, and the models as the agent wants them."""

    def __init__(self, models: Sequence[Artifact]) -> None:
        self.paths: dict[str, Path] = {}
        self.models: list[dict[str, Any]] = []
        for model in models:
            feeds = hashlib.sha256(model.feeds.read_bytes()).hexdigest()
            self.paths |= {model.sha256: model.path, feeds: model.feeds}
            self.models.append(
                {
                    "sha256": model.sha256,
                    "path": model.sha256,
                    "feeds": feeds,
                    "tolerance": model.tolerance,
                }
            )

    def content(self, sha256: str) -> bytes:
        """A file that is what its hash says.

        Raises:
            ModelRejectedError: It changed.
        """
        path = self.paths[sha256]
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            reason = f"{path} changed since it was hashed; export it again"
            raise ModelRejectedError({sha256: reason})
        return content


def _name(content: object) -> str:
    """A session's name: 32 hex digits of what it measures, and on what."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
