"""onnxruntime on this host: every session in a fresh process."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency import host_facts
from latency.artifact import Artifact
from latency.backend import Samples
from latency.database import storage_errors
from latency.outcome import samples_of
from latency.session_process import run_process
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
        return host_facts.fingerprint(
            threads=self.threads,
            provider=self.provider,
            spinning=self.spinning,
            affinity=self.affinity,
        )

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: onnxruntime refused a model or its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: The provider is not in this onnxruntime.
        """
        with storage_errors(Path(tempfile.gettempdir())):
            outcome = run_process(
                # -P: a module of the user's in the working directory must not shadow ours
                [sys.executable, "-P", "-m", "latency.session"],
                self._request(models, timing),
                timeout_s=timing.timeout_s(len(models)),
                environment=_environment(),
            )
        return samples_of(outcome, self.provider)

    def _request(self, models: Sequence[Artifact], timing: TimingConfig) -> dict[str, Any]:
        return {
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
            **timing.request(),
        }


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
