"""The fresh process of a session, watched from outside: its end, its time, the device's heat.

Part of the agent: standard library and Python 3.9 only. A local backend uses it on this host,
the agent on a device.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency import governor, host_facts, nvidia
from latency.nvml import nvml

COOL_S = 300.0
"""Longest wait for a device to cool down before a session."""
POLL_S = 2.0
"""Time between two looks at throttling and temperatures: a look costs a Raspberry Pi 5 ms."""


def run_process(
    command: Sequence[str],
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one session in a child that never lives longer than this call.

    Args:
        command: Runs `latency.session.main`.
        request: What that takes. `prepare` (governor, cool_to_c; null asks for nothing) is done
            here, before, and undone after; what became of it is the fact `prepared`.
        timeout_s: Longest time; 10 times the child's own estimate where that is more.
        environment: The child's; None leaves ours.

    Returns:
        `{"reply": ...}` of `latency.session`, `{"timeout": line}` or `{"lost": line}`, the last
        two with the model in work as `sha256` (None where that is not known).

    Raises:
        OSError: The disk is full.
    """
    with contextlib.ExitStack() as stack:
        process = _Process(
            Path(stack.enter_context(tempfile.TemporaryDirectory())), command, request
        )
        # A session without models only looks whether the runtime is there
        wanted = request.get("prepare", {}) if request["models"] else {}
        if wanted.get("cool_to_c") is not None:
            process.prepared["cooling"] = cool_down(wanted["cool_to_c"])
        if wanted.get("governor") is not None:
            cpus = request["affinity"] or host_facts.available_cpus()
            held = governor.held(wanted["governor"], cpus)
            process.prepared["governor"] = stack.enter_context(held)
        return process.outcome(timeout_s, environment)


def cool_down(
    limit_c: float, *, longest_s: float = COOL_S, pause_s: float = 1.0
) -> dict[str, float | None]:
    """Wait until no sensor is hotter than a limit, or for `longest_s`.

    Returns:
        `limit_c`; `waited_s`; and `hottest_c` at the end, null where there is no sensor.
    """
    start = time.monotonic()
    while True:
        hottest_c = _hottest_c()
        waited_s = time.monotonic() - start
        if hottest_c is None or hottest_c <= limit_c or waited_s >= longest_s:
            return {"limit_c": limit_c, "waited_s": waited_s, "hottest_c": hottest_c}
        time.sleep(pause_s)


def _hottest_c() -> float | None:
    values = [celsius for celsius in host_facts.temperatures_c().values() if celsius == celsius]
    return max(values, default=None)


class _Process:
    def __init__(self, folder: Path, command: Sequence[str], request: Mapping[str, Any]) -> None:
        self.command = command
        self.request = {**request, "parent_pid": os.getpid()}
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        self.throttled: set[str] = set()
        self.hottest_c: float | None = None
        self.prepared: dict[str, Any] = {}

    def outcome(self, timeout_s: float, environment: Mapping[str, str] | None) -> dict[str, Any]:
        # Files, not pipes: nothing to drain while waiting, and readable when the time is up
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=environment,
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
        if code is None:
            line = f"a session took longer than {self.deadline_s:.0f} s"
            return {"timeout": line, "sha256": self._in_work()}
        messages = self._messages()
        if messages and "reply" in messages[-1]:
            return {"reply": self._with_heat(messages[-1]["reply"])}
        return {"lost": self._death(code), "sha256": self._in_work()}

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        # stdin stays open: the child takes its end for the death of its parent
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(self.request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
        """The exit code; None when the time was up first."""
        start = time.monotonic()
        self.deadline_s = timeout_s
        while True:
            left_s = start + self.deadline_s - time.monotonic()
            try:
                return process.wait(max(0.0, min(POLL_S, left_s)))
            except subprocess.TimeoutExpired:
                self._look()
            if left_s <= POLL_S:
                # The child knows better by now how slow its models are
                estimates = [m["estimate_s"] for m in self._messages() if "estimate_s" in m]
                longer = max([10 * estimate for estimate in estimates], default=0.0)
                if longer <= self.deadline_s:
                    return None
                self.deadline_s = longer

    def _look(self) -> None:
        self.throttled.update(host_facts.throttling())
        if self.request["models"] and nvidia.has_models(self.request):
            library = nvml()
            self.throttled.update(library.slowdowns() if library else ())
        now_c = _hottest_c()
        if now_c is not None and (self.hottest_c is None or now_c > self.hottest_c):
            self.hottest_c = now_c

    def _with_heat(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "facts" in reply:
            self._look()
            reply["facts"].update(
                throttled=sorted(self.throttled),
                hottest_c=self.hottest_c,
                prepared=self.prepared,
            )
        return reply

    def _messages(self) -> list[dict[str, Any]]:
        # What follows the last \n is torn
        lines = self.stdout.read_text(errors="replace").split("\n")[:-1]
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):  # what the runtime itself prints
                found.append(json.loads(line))
        return [message for message in found if isinstance(message, dict)]

    def _in_work(self) -> str | None:
        indices = [m["model"] for m in self._messages() if "model" in m]
        return self.request["models"][indices[-1]]["sha256"] if indices else None

    def _death(self, code: int) -> str:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        last = self.stderr.read_text(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"the measuring process died ({how})", *last])
