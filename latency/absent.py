"""Devices that are not at hand: what their stored tables and measurements still tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from latency.artifact import Artifact
from latency.database import connect
from latency.device_profile import DeviceProfile
from latency.devices import get_device, list_devices
from latency.measurement import Measurement, precise, summarize
from latency.protocol import PROTOCOL_VERSION
from latency.session_effects import without_session_effects
from latency.store import LatencyStore
from latency.table_store import TableStore
from latency.timing import TimingConfig


def find_device(name: str, database: Path) -> DeviceProfile:
    """The profile called `name`, or one made of an imported table of that name.

    Args:
        name: Name of the device.
        database: The run database; it need not exist.

    Raises:
        UserError: There is neither.
    """
    if name not in list_devices() and database.exists():
        with closing(connect(database)) as connection:
            found = TableStore(connection).tables(name)
        if found:
            identity, _ = found[0]
            return DeviceProfile(name=name, backend=identity.backend, threads=identity.threads)
    return get_device(name)


def stored_measurements(
    artifacts: Sequence[Artifact],
    *,
    fingerprint: Mapping[str, str],
    timing: TimingConfig,
    store: LatencyStore,
    reason: str,
) -> list[Measurement]:
    """What the store holds of artifacts on a device that is not at hand; nothing is run.

    Args:
        artifacts: What to look up.
        fingerprint: The device's when it was measured.
        timing: Mode and numbers; standard results satisfy a quick request.
        store: Where sessions are kept.
        reason: Why the device is not at hand; the message of what is `lost`.
    """
    device = store.add_device(fingerprint)
    baseline = store.baseline(device, PROTOCOL_VERSION)
    rules = [timing] if timing.mode == "standard" else [TimingConfig.standard(), timing]
    keys = [artifact.key for artifact in artifacts]
    stored = [
        (without_session_effects(store.history(device, PROTOCOL_VERSION, rule.mode), keys), rule)
        for rule in rules
    ]
    results = []
    for artifact in artifacts:
        found = [(sessions[artifact.key], rule) for sessions, rule in stored]
        sessions, rule = next((pair for pair in found if precise(*pair)), found[-1])
        result = summarize(artifact.sha256, sessions, rule, baseline)
        results.append(replace(result, message=reason) if result.status == "lost" else result)
    return results
