"""Quality evaluations on the workers of a Ray cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.executors.executor import Metrics
from nas.executors.package import Package
from nas.executors.ray_cluster import RayCluster
from nas.tasks import SplitName
from search_spaces import Architecture, UserError

ATTEMPTS = 3
"""Workers that may be lost over one subnet, and starts in a row that may fail."""
POLL_S = 1.0

Told = Callable[[str, Mapping[str, Any]], None]
"""Hears what happens to the cluster: a name, and what belongs to it."""


@dataclass(eq=False)
class _Member:
    """A worker that has introduced itself, or is about to."""

    handle: Any
    host: str = ""
    node: str = ""
    busy: bool = False


class RayExecutor:
    """Evaluates on as many subnets at once as the cluster has room for.

    The supernet and its data go to the cluster's object store once, and from there to each node;
    workers read no file. A subnet goes to one worker; if that is lost with its process or its
    node, to another, and a new worker is started. Nothing is started before the first evaluation.
    """

    def __init__(
        self,
        address: str,
        package: Callable[[], Package],
        probe: Callable[[], Mapping[str, Any]],
        *,
        workers: int | None,
        cpus: int | None,
        timeout_s: float,
        local_cpus: int,
        most: int,
        told: Told,
    ) -> None:
        """Note what will be needed.

        Args:
            address: `local`, `auto`, or HOST:PORT.
            package: What workers hold.
            probe: `Opened.introduction` of this process: workers with another probe are refused.
            workers: So many; None is as many as there is room for.
            cpus: CPUs that each reserves; None is one for each thread of an evaluation.
            timeout_s: Longest time without any worker.
            local_cpus: CPUs of a cluster that is started here.
            most: Workers at most, where their number is not given.
            told: Hears of starts and losses.
        """
        self.address = address
        self._package, self._probe = package, probe
        self._wanted, self._cpus, self._timeout_s = workers, cpus, timeout_s
        self._local_cpus, self._most, self._told = local_cpus, most, told
        self._cluster: RayCluster | None = None
        self._members: list[_Member] = []
        self._joining: dict[Any, _Member] = {}
        self._failed_starts = 0
        self._target = 0
        self._nobody_since_s = 0.0
        self._excuse = ""
        self._split: SplitName | None = None

    @property
    def workers(self) -> int:
        """Workers that are ready now; 0 before the first evaluation."""
        return len(self._members)

    def evaluate(
        self, architectures: Sequence[Architecture], split: SplitName, share: float = 1.0
    ) -> Iterator[tuple[Architecture, Metrics]]:
        """See `Executor`.

        Raises:
            UserError: Beside what an evaluation raises: a subnet cost three workers, or no worker
                can start.
            ValueError: The workers hold another split.
        """
        if not architectures:
            return
        self._start(split)
        import ray  # not before its settings are made

        waiting = deque(architectures)
        lost = dict.fromkeys(architectures, 0)
        running: dict[Any, tuple[_Member, Architecture]] = {}
        # What an evaluation that was broken off still does is done before the next.
        for member in self._members:
            member.busy = False
        self._recruit()
        while waiting or running:
            self._check_that_somebody_is_there()
            for member in self._members:
                if waiting and not member.busy:
                    arch = waiting.popleft()
                    task = member.handle.evaluate.remote(arch.to_json(), share)
                    running[task], member.busy = (member, arch), True
            done, _ = ray.wait([*running, *self._joining], timeout=POLL_S)
            for ref in done:
                if ref in self._joining:
                    self._welcome(ref)
                    continue
                member, arch = running.pop(ref)
                try:
                    found = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except ray.exceptions.RayError as error:
                    lost[arch] += 1
                    self._lose(member, arch, lost[arch], _reason(error))
                    waiting.appendleft(arch)
                else:
                    member.busy = False
                    self._failed_starts = 0
                    yield arch, found

    def close(self) -> None:
        """See `Executor`."""
        self._members, self._joining = [], {}
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _start(self, split: SplitName) -> None:
        if self._cluster is not None:
            if split != self._split:
                raise ValueError(f"the workers hold the {self._split} split, not {split}")
            return
        import numpy as np

        from nas.executors.ray_worker import Worker

        package = self._package()
        data = package.to_bytes()
        self._split = package.split
        self._expected = self._probe()
        self._cluster = RayCluster(self.address, cpus=self._local_cpus, store_bytes=len(data))
        cpus = self._cpus or package.threads
        room = self._cluster.room(cpus)
        self._target = self._wanted or max(1, min(room, self._most))
        self._asked = f"{self._target} worker{'s' * (self._target > 1)} of CPU {cpus}"
        if self.address == "local" and not room:
            raise UserError(self._nobody("no worker fits"))
        import ray

        # An array, for all workers of a node to share.
        self._held = ray.put(np.frombuffer(data, dtype=np.uint8))
        self._actor = ray.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0)(Worker)
        self._told(
            "cluster_started",
            {
                "address": self.address,
                "workers": self._target,
                "cpus": cpus,
                "threads": package.threads,
                "nodes": len(self._cluster.nodes()),
                "supernet": package.hash,
                "bytes": len(data),
            },
        )
        self._nobody_since_s = time.monotonic()
        self._recruit()

    def _recruit(self) -> None:
        """Ask for as many workers as are missing."""
        for _ in range(self._target - len(self._members) - len(self._joining)):
            handle = self._actor.remote(self._held)
            self._joining[handle.introduction.remote()] = _Member(handle)

    def _lose(self, member: _Member, arch: Architecture, attempt: int, reason: str) -> None:
        """Replace a worker that was lost over a subnet.

        Raises:
            UserError: It was the last that the subnet may cost.
        """
        self._dismiss(member)
        self._told(
            "worker_lost",
            {
                "host": member.host,
                "node": member.node,
                "reason": reason,
                "architecture": dict(arch),
                "attempt": attempt,
            },
        )
        if attempt == ATTEMPTS:
            raise UserError(
                f"architecture {arch.to_json()} was given to {ATTEMPTS} workers, and all were "
                f"lost, the last on {member.host}: {reason}; see whether the memory of the nodes "
                "is enough, or leave cluster out"
            )
        self._recruit()

    def _welcome(self, ref: Any) -> None:
        """Take a worker in, if it computes as this process does."""
        import ray

        member = self._joining.pop(ref)
        try:
            found = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            reason = _reason(error)
            if "No module named" in reason:
                reason += " (every node needs elastic-nas with the extra ray)"
            self._excuse = f"a worker did not start: {reason}"
            self._told("worker_failed", {"reason": reason})
            if self._failed_starts < ATTEMPTS:
                self._recruit()
            return
        member.host, member.node = str(found["host"]), str(found["node"])
        differing = {
            name: (found[name], value)
            for name, value in self._expected.items()
            if found[name] != value
        }
        if "probe" not in differing:
            self._members.append(member)
            return
        facts = [
            f"{name} {theirs} there, {ours} here"
            for name, (theirs, ours) in differing.items()
            if name != "probe"
        ]
        self._excuse = (
            f"{member.host} gives other last bits than this host "
            f"({', '.join(facts) or 'with the same versions'})"
        )
        self._told("worker_refused", {"host": member.host, "reason": self._excuse})
        self._target -= 1
        self._dismiss(member)

    def _dismiss(self, member: _Member) -> None:
        import ray

        if member in self._members:
            self._members.remove(member)
        ray.kill(member.handle)

    def _check_that_somebody_is_there(self) -> None:
        now_s = time.monotonic()
        if self._members:
            self._nobody_since_s = now_s
            return
        if not self._joining:
            raise UserError(self._nobody(self._excuse or "no worker is left"))
        if now_s - self._nobody_since_s > self._timeout_s:
            raise UserError(self._nobody(f"no worker was ready within {self._timeout_s:g} s"))

    def _nobody(self, why: str) -> str:
        assert self._cluster is not None
        return (
            f"cluster.address {self.address}: {why}; {self._asked} asked for, the cluster has "
            f"{self._cluster.describe()}; lower cluster.cpus, wait until it is free, or leave "
            "cluster out"
        )


def _cause(error: Any) -> BaseException:
    """What an evaluation raised on the worker; a bug keeps where."""
    cause: BaseException = error.cause
    if not isinstance(cause, UserError):
        cause.add_note(str(error))
    return cause


def _reason(error: Exception) -> str:
    """Why a worker was lost or did not start, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # After a traceback the error itself is last; else the first line says what happened.
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return line.rstrip(".")
