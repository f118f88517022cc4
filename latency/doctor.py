"""Is this device fit to measure on? Really runs it, end to end."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from latency.artifact import Artifact
from latency.backend import BackendError, DeviceBackend
from latency.backends import open_backend
from latency.device_profile import DeviceProfile
from latency.lease import device_lease
from latency.session_record import timed_session
from latency.timing import TimingConfig
from search_spaces.errors import UserError

MIN_FREE_BYTES = 2 * 1024**3
MAX_SPREAD = 0.03
"""Largest difference of the same model's ratio between two short sessions."""

TIMING = replace(TimingConfig.quick(), min_sessions=2, warmup_s=0.2)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    message: str


def doctor(profile: DeviceProfile, *, lease_timeout_s: float = 60.0) -> list[Check]:
    """Try a device: runtime, throttling, a session, repeatability, governor, load, disk.

    One behind SSH also: host key, login, Python.
    Takes about ten seconds. Nothing is stored. A check that fails says what to do.

    Args:
        profile: The device.
        lease_timeout_s: Longest wait for another measurement to end.
    """
    with tempfile.TemporaryDirectory() as folder:
        return list(_checks(profile, Path(folder), lease_timeout_s))


def _checks(profile: DeviceProfile, folder: Path, lease_timeout_s: float) -> Iterator[Check]:
    with ExitStack() as stack:
        name = "profile"
        try:
            backend = stack.enter_context(closing(open_backend(profile)))
            name = "connection"
            device = backend.place.describe()
        except UserError as error:
            yield Check(name=name, ok=False, message=str(error))
            return
        if profile.by_agent:
            where = f"{backend.place.name}, Python {device['python']} there"
            yield Check(name="connection", ok=True, message=where)
        lacking = backend.missing()
        runtime = lacking or f"{_runtime(backend)}; offers {', '.join(profile.offered)}"
        yield Check(name="runtime", ok=lacking is None, message=runtime)
        yield _throttling(device["throttled"])
        if lacking is None:
            yield from _sessions(backend, folder, profile.lease, lease_timeout_s)
        place = backend.place
        if str(place.preparation):
            unmet = place.preparation.unmet(device, place.name)
            message = "; ".join(unmet) or f"for each session: {place.preparation}"
            yield Check(name="preparation", ok=not unmet, message=message)
        yield _governor(place.preparation.fingerprint(device)["governor"])
        yield _load(device["load"], len(device["cpus"]))
        yield _disk(Path.cwd())


def _runtime(backend: DeviceBackend) -> str:
    facts = backend.fingerprint()
    names = ("provider", "compute", "mode", "precision", "gpu", "threads")
    return ", ".join([facts["runtime"], *(f"{n} {facts[n]}" for n in names if n in facts)])


def _throttling(reasons: Sequence[str]) -> Check:
    message = "the device tells of nothing that holds it back"
    if reasons:
        message = f"held back by {', '.join(reasons)}; see to its power supply and its cooling"
    return Check(name="throttling", ok=not reasons, message=message)


def _sessions(
    backend: DeviceBackend, folder: Path, lease: str, lease_timeout_s: float
) -> Iterator[Check]:
    try:
        anchor, candidate = backend.anchor(folder), backend.anchor(folder, layers=4)
        with device_lease(lease, timeout_s=lease_timeout_s):
            ratios, anchor_us, hot = _two_sessions(backend, anchor, candidate)
    except (UserError, BackendError) as error:
        yield Check(name="session", ok=False, message=str(error))
        return
    message = "; ".join([f"the anchor takes {anchor_us:.0f} us", *hot])
    yield Check(name="session", ok=not hot, message=message)
    spread = abs(ratios[1] / ratios[0] - 1)
    message = f"two sessions differ by {100 * spread:.1f} %"
    if spread > MAX_SPREAD:
        message += f", over {100 * MAX_SPREAD:.0f} %: close what else runs, or measure longer"
    yield Check(name="repeatability", ok=spread <= MAX_SPREAD, message=message)


def _two_sessions(
    backend: DeviceBackend, anchor: Artifact, candidate: Artifact
) -> tuple[list[float], float, list[str]]:
    """Ratio of the candidate in each of two sessions, the anchor's us, and why one was hot."""
    ratios, anchor_us, hot = [], 0.0, []
    for seed in range(2):
        timing = TIMING.of_session(seed)
        about = {"session_id": "", "seed": seed, "started_at": "", "timing": {}}
        models = [anchor, candidate]
        samples = backend.run_session(models, timing)
        record = timed_session(about, models, samples, timing)
        ratios.append(record.models[1].ratio or 0.0)
        anchor_us = (record.anchor_ns or 0.0) / 1e3
        hot += [record.message] if record.hot else []
    return ratios, anchor_us, list(dict.fromkeys(hot))


def _governor(governor: str) -> Check:
    ok = governor in ("performance", "unknown")
    message = f"frequency governor {governor}"
    if governor == "unknown":
        message += ": not readable here, as in most virtual machines"
    elif not ok:
        message += (
            "; `prepare: {governor: performance}` in the profile, or `cpupower frequency-set -g "
            "performance`, makes latencies repeatable"
        )
    return Check(name="governor", ok=ok, message=message)


def _load(load: float, cpus: int) -> Check:
    ok = load < 0.5 * cpus
    message = f"load average {load:.2f} on {cpus} CPUs"
    if not ok:
        message += ": something else is busy; close it before you measure"
    return Check(name="load", ok=ok, message=message)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    ok = free >= MIN_FREE_BYTES
    message = f"{free / 1024**3:.1f} GiB free in the working directory"
    if not ok:
        message += f", under {MIN_FREE_BYTES / 1024**3:.0f} GiB; free some"
    return Check(name="disk", ok=ok, message=message)
