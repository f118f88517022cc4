"""The executor of a search: this process, or the cluster of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from latency.host_facts import available_cpus
from nas.config.sections import MOST_WORKERS
from nas.executors.executor import Executor
from nas.executors.package import arithmetic, pack, probe
from nas.executors.ray_cluster import require_ray
from nas.executors.ray_executor import RayExecutor
from nas.run import Run
from nas.stages.supernet import TrainedSupernet

SPLIT: Final = "validation"
"""What a search judges on, and all that workers are given of the data."""


def check_cluster(run: Run) -> None:
    """Check what can be checked before anything is trained.

    Raises:
        UserError: The configuration has a cluster, and Ray is not installed.
    """
    if run.config.cluster is not None:
        require_ray(run.config.cluster.address)


@contextmanager
def executor_of(run: Run, supernet: TrainedSupernet) -> Iterator[Executor]:
    """What evaluates in a search. A cluster is there from the first evaluation to the end.

    Raises:
        UserError: Ray is not installed.
    """
    check_cluster(run)
    settings = run.config.cluster
    if settings is None:
        yield supernet.local_executor()
        return

    def told(event: str, fields: Mapping[str, Any]) -> None:
        run.events.write(event, **fields)
        if (line := _in_words(event, fields)) is not None:
            run.console.print(line, highlight=False, soft_wrap=True)

    executor = RayExecutor(
        settings.address,
        lambda: pack(supernet.model, supernet.task, supernet.hash, SPLIT),
        lambda: {"probe": probe(supernet.model, supernet.task, SPLIT), **arithmetic()},
        workers=settings.workers,
        cpus=settings.cpus,
        timeout_s=settings.timeout_s,
        local_cpus=len(available_cpus()),
        most=MOST_WORKERS,
        told=told,
    )
    try:
        yield executor
    finally:
        executor.close()


def _in_words(event: str, fields: Mapping[str, Any]) -> str | None:
    if event == "cluster_started":
        workers, nodes = fields["workers"], fields["nodes"]
        return (
            f"Cluster: {workers} worker{'s' * (workers > 1)} of CPU {fields['cpus']} on "
            f"{nodes} node{'s' * (nodes > 1)}, {fields['bytes'] / 1e6:.3g} MB each, threads of an "
            f"evaluation: {fields['threads']}"
        )
    if event == "worker_lost":
        return f"Lost a worker on {fields['host']} ({fields['reason']}); its subnet goes to another"
    if event == "worker_failed":
        return f"A worker did not start: {fields['reason']}"
    if event == "worker_refused":
        return f"Worker left out: {fields['reason']}"
    return None
