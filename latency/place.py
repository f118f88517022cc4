"""Where sessions run: on this host, or on a device behind a link (`latency.remote_host`)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from latency import host_facts
from latency.artifact import Artifact
from latency.backend import Samples
from latency.database import storage_errors
from latency.outcome import engine_hash, samples_of
from latency.preparation import UNPREPARED, Preparation
from latency.session_process import run_process
from latency.timing import TimingConfig
from latency.user_cache import user_cache
from search_spaces.errors import UserError

BUILD_S = 1800.0
"""Longest that building one engine may take."""


class Place(Protocol):
    """A machine on which every session is a fresh process. Backends say what runs in it."""

    preparation: Preparation
    """What is done to it before each session."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def describe(self) -> Mapping[str, Any]:
        """What the machine says of itself; see `latency.host_facts.describe`.

        The same until the process ends, but for what it says of the moment.

        Raises:
            UserError: It cannot be reached.
        """

    def run(
        self,
        request: Mapping[str, Any],
        models: Sequence[Artifact],
        timing: TimingConfig,
        *,
        loading_s: float = 0.0,
    ) -> list[Samples]:
        """Time models in one fresh process; see `DeviceBackend.run_session`.

        Args:
            request: `runtime`, `threads`, and what that runtime asks for; see
                `latency.session`.
            models: The anchor first. None at all: only tries whether the runtime is there.
            timing: The numbers of the session.
            loading_s: Time that loading may take beside what `timing` allows.

        Raises:
            DeviceLostError: The link or the process died.
            ModelRejectedError: The runtime refused a model or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: The runtime cannot run there.
        """

    def build(self, request: Mapping[str, Any], model: bytes, timings: str) -> bytes:
        """Build a TensorRT engine in a fresh process: it has to be built where it runs.

        Args:
            request: library, shapes, tf32; see `latency.tensorrt_engine.build_engine`.
            model: An ONNX file.
            timings: Names the kernel timings to use and to add to, hex digits.

        Raises:
            DeviceLostError: The link or the process died.
            SessionTimeoutError: It took longer than half an hour.
            UserError: The library is not there or refuses the model.
        """

    def close(self) -> None:
        """End what is held; a later call begins anew."""


class ThisHost:
    """This machine, with the Python that runs us."""

    name = "this host"

    def __init__(self, preparation: Preparation = UNPREPARED) -> None:
        self.preparation = preparation
        self._description: dict[str, Any] = {}

    def describe(self) -> Mapping[str, Any]:
        """See `Place`."""
        if not self._description:
            self._description = host_facts.describe()
        return self._description

    def run(
        self,
        request: Mapping[str, Any],
        models: Sequence[Artifact],
        timing: TimingConfig,
        *,
        loading_s: float = 0.0,
    ) -> list[Samples]:
        """See `Place`."""
        listed = [
            {
                "sha256": model.sha256,
                "path": str(model.path.resolve()),
                "feeds": str(model.feeds.resolve()),
                "tolerance": model.tolerance,
            }
            for model in models
        ]
        outcome = _process(
            {"models": listed, **request, **self.preparation.request(), **timing.request()},
            timeout_s=loading_s + timing.timeout_s(len(models)),
        )
        return samples_of(outcome, self.name)

    def build(self, request: Mapping[str, Any], model: bytes, timings: str) -> bytes:
        """See `Place`."""
        with (
            storage_errors(Path(tempfile.gettempdir())),
            tempfile.TemporaryDirectory() as name,
        ):
            folder, kept = Path(name), user_cache("engines") / f"timings-{timings}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            (folder / "model").write_bytes(model)
            files = {"model": folder / "model", "engine": folder / "engine", "timings": kept}
            paths = {key: str(path) for key, path in files.items()}
            outcome = _process({"build": {**request, **paths}, "models": []}, timeout_s=BUILD_S)
            engine_hash(outcome, self.name)
            return files["engine"].read_bytes()

    def close(self) -> None:
        """See `Place`; nothing is held."""


def checked(
    place: Place,
    module: str,
    *,
    threads: int = 1,
    gpu: bool = False,
) -> Mapping[str, Any]:
    """What a machine says of itself, if it has a runtime and what else is asked for.

    Its fingerprint is as it is in a session, once the machine is prepared.

    Args:
        place: The machine.
        module: The runtime, one of `latency.host_facts.RUNTIMES`.
        threads: It has as many CPUs.
        gpu: It has an NVIDIA GPU.

    Raises:
        UserError: It has not, or cannot be reached.
    """
    description = place.describe()
    cpus = description["cpus"]
    lacking = [name for name in (module, "numpy") if description["packages"][name] is None]
    packages = " ".join(lacking).replace("_", "-")
    if lacking and isinstance(place, ThisHost):
        raise UserError(f"{' and '.join(lacking)} is not installed; pip install {packages}")
    if lacking:
        raise UserError(
            f"{place.name} has no {' and no '.join(lacking)} for Python {description['python']}; "
            f"log in and run `python3 -m pip install {packages}` (in a virtual environment, whose "
            "interpreter is then python in the device profile)"
        )
    if not 1 <= threads <= len(cpus):
        raise UserError(f"threads {threads} is not in 1..{len(cpus)}, the CPUs of {place.name}")
    place.preparation.check(description, place.name)
    if gpu and description["no_gpu"] is not None:
        raise UserError(f"{place.name}: {description['no_gpu']}")
    return {**description, "fingerprint": place.preparation.fingerprint(description)}


def _process(request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    with storage_errors(Path(tempfile.gettempdir())):
        return run_process(
            # -P: a module of the user's in the working directory must not shadow ours
            [sys.executable, "-P", "-c", "from latency.session import main; main()"],
            request,
            timeout_s=timeout_s,
            environment=_environment(),
        )


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
