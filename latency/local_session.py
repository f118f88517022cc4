"""The child process of one session on this host, whatever runtime it holds."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency.artifact import Artifact
from latency.backend import (
    Block,
    DeviceLostError,
    ModelRejectedError,
    Samples,
    SessionTimeoutError,
)
from latency.database import storage_errors
from latency.host_facts import available_cpus
from latency.timing import TimingConfig
from search_spaces.errors import UserError


def local_session(
    module: str,
    options: Mapping[str, Any],
    models: Sequence[Artifact],
    timing: TimingConfig,
    *,
    loading_s: float = 0.0,
) -> list[Samples]:
    """Time models in one fresh process; see `DeviceBackend.run_session`.

    Args:
        module: What the process runs; its `Runtime` gets the request.
        options: What the runtime asks for, and `affinity`, `threads`.
        models: The anchor first.
        timing: The numbers of the session.
        loading_s: Time that loading may take beside what `timing` allows.

    Raises:
        DeviceLostError: The process died.
        ModelRejectedError: The runtime refused a model or its outputs are wrong.
        SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
        UserError: The runtime cannot run here.
    """
    request = {**options, **_request(models, timing)}
    timeout_s = loading_s + max(timing.min_timeout_s, 10 * timing.estimate_s(len(models)))
    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        reply = _Process(Path(folder), module, request, models).reply(timeout_s)
    if "missing" in reply:
        raise UserError(reply["missing"])
    if "rejected" in reply:
        raise ModelRejectedError(reply["rejected"])
    return [
        Samples(
            sha256=model["sha256"],
            blocks=tuple(_block(block) for block in model["blocks"]),
            max_abs_difference=model["max_abs_difference"],
            session=reply["facts"],
        )
        for model in reply["models"]
    ]


def check_threads(threads: int) -> None:
    """Refuse more threads than this host has CPUs.

    Raises:
        UserError: `threads` is not in 1..number of available CPUs.
    """
    cpus = len(available_cpus())
    if not 1 <= threads <= cpus:
        raise UserError(f"threads {threads} is not in 1..{cpus}, the CPUs available here")


def _request(models: Sequence[Artifact], timing: TimingConfig) -> dict[str, Any]:
    return {
        "parent_pid": os.getpid(),
        "models": [
            {
                "sha256": model.sha256,
                "path": str(model.path.resolve()),
                "feeds": str(model.feeds.resolve()),
                "tolerance": model.tolerance,
            }
            for model in models
        ],
        "seed": timing.seed,
        "rounds": timing.rounds,
        "block_ms": timing.block_ms,
        "warmup_s": timing.warmup_s,
        "anchor_blocks": timing.anchor_blocks,
    }


class _Process:
    """The child of one session, never longer alive than the call that made it."""

    def __init__(
        self, folder: Path, module: str, request: dict[str, Any], models: Sequence[Artifact]
    ) -> None:
        self.module = module
        self.request = request
        self.models = models
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"

    def reply(self, timeout_s: float) -> dict[str, Any]:
        # Files, not pipes: nothing to drain while waiting, and readable when the time is up
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            process = subprocess.Popen(
                # -P: a module of the user's in the working directory must not shadow ours
                [sys.executable, "-P", "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=_environment(),
                # Ctrl-C goes to us alone; we then end the child
                start_new_session=True,
            )
        try:
            self._send(process)
            code = self._wait(process, timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
        messages = self._messages()
        if messages and "reply" in messages[-1]:
            return dict(messages[-1]["reply"])
        raise DeviceLostError(self._death(code), self._in_work())

    def _send(self, process: "subprocess.Popen[bytes]") -> None:
        # stdin stays open: the child takes its end for the death of its parent
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(self.request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            process.wait()

    def _wait(self, process: "subprocess.Popen[bytes]", timeout_s: float) -> int:
        start = time.monotonic()
        deadline = timeout_s
        while True:
            try:
                return process.wait(max(0.0, start + deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The child knows better by now how slow its models are
                estimates = [m["estimate_s"] for m in self._messages() if "estimate_s" in m]
                longer = max([10 * estimate for estimate in estimates], default=0.0)
                if longer <= deadline:
                    raise SessionTimeoutError(
                        f"a session took longer than {deadline:.0f} s", self._in_work()
                    ) from None
                deadline = longer

    def _messages(self) -> list[dict[str, Any]]:
        lines = self.stdout.read_text().split("\n")[:-1]  # what follows the last \n is torn
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _in_work(self) -> str | None:
        indices = [m["model"] for m in self._messages() if "model" in m]
        return self.models[indices[-1]].sha256 if indices else None

    def _death(self, code: int) -> str:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        last = self.stderr.read_text(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"the measuring process died ({how})", *last])


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _block(block: dict[str, Any]) -> Block:
    return Block(**{**block, "samples_ns": tuple(block["samples_ns"])})
