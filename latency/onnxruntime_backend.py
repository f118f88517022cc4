"""onnxruntime on this host: every session in a fresh process."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latency import host_facts
from latency.artifact import Artifact
from latency.backend import (
    Block,
    DeviceLostError,
    ModelRejectedError,
    Samples,
    SessionTimeoutError,
)
from latency.database import storage_errors
from latency.timing import TimingConfig
from search_spaces.errors import UserError


class OnnxRuntimeBackend:
    """onnxruntime with explicit threads, one provider and bound host memory.

    Spinning is off unless asked for. With one thread it does not matter. With two on two cores,
    spinning was 10 to 20 % faster while a core was mostly free, and 2 to 3 times slower (15 to
    24 ms against 7) as soon as other processes wanted both: the repeatable choice is the
    default. The deployed session has to make the same one (`session.intra_op.allow_spinning`).
    """

    name = "onnxruntime"

    def __init__(
        self,
        *,
        threads: int,
        provider: str = "CPUExecutionProvider",
        spinning: bool = False,
        affinity: Sequence[int] | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            threads: Intra-op threads, at least 1.
            provider: Execution provider, asserted in every session.
            spinning: Whether idle threads spin.
            affinity: CPUs to pin a session to; None leaves the choice to the scheduler.

        Raises:
            UserError: More threads than CPUs, or CPUs that are not available.
        """
        cpus = host_facts.available_cpus()
        if not 1 <= threads <= len(cpus):
            raise UserError(f"threads {threads} is not in 1..{len(cpus)}, the CPUs available here")
        if affinity is not None and not set(affinity) <= set(cpus):
            raise UserError(f"affinity {list(affinity)} is not within the available CPUs {cpus}")
        self.threads = threads
        self.provider = provider
        self.spinning = spinning
        self.affinity = None if affinity is None else sorted(affinity)

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, runtime and its options; the same until one of them changes."""
        cpus = self.affinity or host_facts.available_cpus()
        return {
            "cpu": host_facts.cpu_model(),
            "cpus": ",".join(str(cpu) for cpu in cpus),
            "cpu_quota": host_facts.cpu_quota(),
            "governor": host_facts.governor(),
            "machine": platform.machine(),
            "os": f"{platform.system()} {_os_version()}",
            "kernel": platform.release(),
            "runtime": f"onnxruntime {version('onnxruntime')}",
            "provider": self.provider,
            "threads": str(self.threads),
            "spinning": "on" if self.spinning else "off",
        }

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: onnxruntime refused a model or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: The provider is not in this onnxruntime.
        """
        with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
            run = _Process(Path(folder), self._request(models, timing), models)
            reply = run.reply(
                max(timing.min_timeout_s, 10 * timing.estimate_s(len(models))),
            )
        if "unavailable" in reply:
            raise UserError(
                f"provider {self.provider} is not in onnxruntime {reply['onnxruntime']} here, "
                f"which has {', '.join(reply['unavailable'])}; choose one in the device profile"
            )
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

    def _request(self, models: Sequence[Artifact], timing: TimingConfig) -> dict[str, Any]:
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
            "threads": self.threads,
            "provider": self.provider,
            "spinning": self.spinning,
            "affinity": self.affinity,
            "seed": timing.seed,
            "rounds": timing.rounds,
            "block_ms": timing.block_ms,
            "warmup_s": timing.warmup_s,
            "anchor_blocks": timing.anchor_blocks,
        }


class _Process:
    """The child of one session, never longer alive than the call that made it."""

    def __init__(self, folder: Path, request: dict[str, Any], models: Sequence[Artifact]) -> None:
        self.request = request
        self.models = models
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"

    def reply(self, timeout_s: float) -> dict[str, Any]:
        # Files, not pipes: nothing to drain while waiting, and readable when the time is up
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            process = subprocess.Popen(
                # -P: a module of the user's in the working directory must not shadow ours
                [sys.executable, "-P", "-m", "latency.session"],
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


def _os_version() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.version()
