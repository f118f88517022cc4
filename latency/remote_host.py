"""A device that is not this host: sessions run there, by an agent."""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from latency.artifact import Artifact
from latency.backend import DeviceLostError, ModelRejectedError, Samples
from latency.link import Link
from latency.outcome import engine_hash, samples_of
from latency.place import BUILD_S
from latency.preparation import UNPREPARED, Preparation
from latency.timing import TimingConfig
from latency.transport import LinkError, Transport
from search_spaces.errors import UserError

T = TypeVar("T")


class RemoteHost:
    """A device behind a transport, on which the code runs that times on this host too.

    A session has a name that follows from what it measures: models, feeds, numbers, seed, device.
    When the link is cut, the agent goes on, and asking for the same session again gives that
    result, also from another process of this host: nothing that was finished is measured twice.
    A result that was received is forgotten when the next session begins or at `close`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        folder: str = "~/.cache/elastic-nas",
        preparation: Preparation = UNPREPARED,
        silence_s: float = 20.0,
        link_retries: int = 5,
        pause_s: float = 0.2,
    ) -> None:
        """Name the device; connects to nothing.

        Args:
            transport: The way to the device.
            folder: Where the agent and its cache lie on the device; `~` is the home there.
            preparation: What is done to the device before each session.
            silence_s: A link without a word for so long counts as cut.
            link_retries: New connections within one session before the device counts as lost.
            pause_s: First pause before such a connection; doubles each time, jittered by half.
        """
        self.transport = transport
        self.folder = folder
        self.preparation = preparation
        self.silence_s = silence_s
        self.link_retries = link_retries
        self.pause_s = pause_s
        self._link: Link | None = None
        self._description: dict[str, Any] | None = None
        self._received: str | None = None

    @property
    def name(self) -> str:
        """See `Place`."""
        return self.transport.name

    def describe(self) -> Mapping[str, Any]:
        """See `Place`; the fingerprint also has `device`, which tells two boards apart.

        Raises:
            UserError: The device cannot be reached.
        """
        if self._description is None:
            try:
                self._retry(lambda link: None, retries=2)
            except DeviceLostError as error:
                raise UserError(
                    f"{error}; check that it is on, and host and python in its profile"
                ) from None
        assert self._description is not None
        return self._description

    def run(
        self,
        request: Mapping[str, Any],
        models: Sequence[Artifact],
        timing: TimingConfig,
        *,
        loading_s: float = 0.0,
    ) -> list[Samples]:
        """See `Place`.

        Raises:
            DeviceLostError: The device or its process died, or the link stayed cut.
            ModelRejectedError: The runtime refused a model, its outputs are wrong, or its file
                changed.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: Host key, user, runtime, or space; see the message.
        """
        files = _Files()
        listed = [files.add(model) for model in models]
        outcome = self._outcome(
            {"models": listed, **request, **self.preparation.request(), **timing.request()},
            files,
            timeout_s=loading_s + timing.timeout_s(len(models)),
        )
        samples = samples_of(outcome, self.name)
        if [one.sha256 for one in samples] != [model.sha256 for model in models]:
            raise DeviceLostError(f"{self.name} answered with other models")
        return samples

    def build(self, request: Mapping[str, Any], model: bytes, timings: str) -> bytes:
        """See `Place`."""
        files = _Files()
        built = {**request, "model": files.add_bytes(model), "timings": timings}
        outcome = self._outcome({"build": built, "models": []}, files, timeout_s=BUILD_S)
        sha256 = engine_hash(outcome, self.name)
        return self._retry(lambda link: link.get(sha256), retries=self.link_retries)

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
            UserError: As for `describe`.
            DeviceLostError: The link stayed cut.
        """
        self.describe()
        self._retry(lambda link: link.call("clean"), retries=self.link_retries)
        self._received = None
        self._drop()

    def _outcome(
        self, request: Mapping[str, Any], files: _Files, *, timeout_s: float
    ) -> dict[str, Any]:
        """What became of the session of a request, with its files sent if they are not there."""
        known = self.describe()
        fingerprint = self.preparation.fingerprint(known)
        name = _name([request, fingerprint, known["packages"], known["gpu"]])

        def session(link: Link) -> dict[str, Any]:
            if self._received is not None:
                link.call("forget", session=self._received)
                self._received = None
            missing = link.call("missing", files=list(files.contents))["missing"]
            for _ in range(3):
                for sha256 in missing:
                    link.put(sha256, files.contents[sha256]())
                reply = link.call("session", session=name, request=request, timeout_s=timeout_s)
                if "outcome" in reply:
                    return dict(reply["outcome"])
                missing = reply["missing"]  # damaged on the device's disk
            raise LinkError("files do not stay whole on the device's disk")

        outcome = self._retry(session, retries=self.link_retries)
        self._received = name
        return outcome

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
        raise DeviceLostError(f"{self.name} is lost: {reason}")

    def _connected(self) -> Link:
        if self._link is None:
            self._link = Link.connect(self.transport, folder=self.folder, silence_s=self.silence_s)
            self._learn(self._link)
        return self._link

    def _learn(self, link: Link) -> None:
        """Ask the device what it is, at every connection: it must not change while measured."""
        description = link.call("describe")
        if self._description is None:
            self._description = description
        for kind in ("fingerprint", "packages", "gpu"):
            old, new = self._description[kind], description[kind]
            if kind == "fingerprint":  # a session that goes on holds the governor
                old, new = (
                    self.preparation.fingerprint(one) for one in (self._description, description)
                )
            for key in old:
                if old[key] != new.get(key):
                    raise UserError(
                        f"{self.name} changed while it was measured: {key} was {old[key]!r} and "
                        f"is {new.get(key)!r}; run the same command again for the device as it is"
                    )

    def _drop(self, *, orderly: bool = True) -> None:
        if self._link is not None:
            self._link.close(orderly=orderly)
            self._link = None


class _Files:
    """The files of a session by SHA-256, read when they are sent."""

    def __init__(self) -> None:
        self.contents: dict[str, Callable[[], bytes]] = {}

    def add(self, model: Artifact) -> dict[str, Any]:
        """Take in a model with its feeds; gives it as the agent wants it."""
        feeds = hashlib.sha256(model.feeds.read_bytes()).hexdigest()
        self.contents[feeds] = lambda: _content(model.feeds, feeds, model)
        packed = model.path.is_dir()
        if packed:
            # A folder is sent as an archive, and unpacked there under a name of its kind
            path = self.add_bytes(pack_folder(model.path))
        else:
            path = model.sha256
            self.contents[path] = lambda: _content(model.path, path, model)
        return {
            "sha256": model.sha256,
            "path": path,
            "unpack": model.path.suffix if packed else None,
            "feeds": feeds,
            "tolerance": model.tolerance,
        }

    def add_bytes(self, content: bytes) -> str:
        """Take in a file that is no file here; gives its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = lambda: content
        return sha256


def _content(path: Path, sha256: str, model: Artifact) -> bytes:
    """A file that is what its hash says.

    Raises:
        ModelRejectedError: It changed.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        reason = f"{path} changed since it was hashed; export it again"
        raise ModelRejectedError({model.sha256: reason})
    return content


def pack_folder(folder: Path) -> bytes:
    """A folder as a zip archive: the same bytes as long as its files are the same."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                archive.writestr(entry, path.read_bytes())
    return stream.getvalue()


def _name(content: object) -> str:
    """A session's name: 32 hex digits of what it measures, and on what."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
