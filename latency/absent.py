"""Devices that are not at hand: what their stored tables and measurements still tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from latency.artifact import Artifact
from latency.backends import BACKENDS
from latency.database import connect
from latency.device_profile import WITH_THREADS, DeviceProfile
from latency.devices import find_profile, get_device
from latency.measurement import Measurement, precise, summarize
from latency.protocol import PROTOCOL_VERSION
from latency.session_effects import without_session_effects
from latency.store import LatencyStore
from latency.table_store import TableIdentity, TableStore
from latency.timing import TimingConfig
from search_spaces.errors import UserError


def find_device(name: str, database: Path) -> DeviceProfile:
    """The profile called `name`, or one made of an imported table of that name.

    Args:
        name: Name of the device.
        database: The run database; it need not exist.

    Raises:
        UserError: There is neither, the profile's file is malformed, or the table does not tell
            how it was measured.
    """
    if find_profile(name) is None and database.exists():
        with closing(connect(database)) as connection:
            found = TableStore(connection).tables(name)
        if found:
            return profile_of(found[0][0])
    return get_device(name)


def profile_of(identity: TableIdentity) -> DeviceProfile:
    """The profile that a table was measured with, as far as latencies depend on it.

    Raises:
        UserError: The table does not tell, or tells of what is not known here.
    """
    what = f"the table of {identity.device}"
    if identity.backend not in BACKENDS:
        raise UserError(
            f"{what} is of backend {identity.backend!r}, which is not one of "
            f"{', '.join(sorted(BACKENDS))}; upgrade elastic-nas, or measure with one of these"
        )
    try:
        keys = BACKENDS[identity.backend].keys_of(identity.fingerprint)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{what} does not tell how {identity.backend} ran: its fingerprint lacks {error}; "
            "export it again where it was measured"
        ) from None
    if identity.backend in WITH_THREADS:
        keys["threads"] = identity.threads
    return DeviceProfile(name=identity.device, backend=identity.backend, **keys)


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
