"""What every DeviceBackend must do. Test files call these with their own backend."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import pytest
from torch import Tensor

from latency.artifact import Artifact
from latency.backend import DeviceBackend, ModelRejectedError, Samples
from latency.backends import open_backend
from latency.device_profile import DeviceProfile
from latency.export import export_network, known_artifact
from latency.graphs import GraphLibrary
from latency.timing import TimingConfig
from supernet.parts import Network


def check_name_and_fingerprint(backend: DeviceBackend) -> None:
    assert backend.name
    first, second = backend.fingerprint(), backend.fingerprint()
    assert dict(first) == dict(second)
    assert first
    assert all(isinstance(k, str) and isinstance(v, str) and v for k, v in first.items())


def check_keys_of(profile: DeviceProfile, fingerprint: Mapping[str, str]) -> None:
    """What a fingerprint says makes the same backend again."""
    keys = open_backend(profile).keys_of(fingerprint)
    again = DeviceProfile(
        name=profile.name, backend=profile.backend, threads=profile.threads, **keys
    )
    was, now = (
        {k: v for k, v in vars(open_backend(one)).items() if k != "place"}
        for one in (profile, again)
    )
    assert was == now


def check_session(
    backend: DeviceBackend, models: Sequence[Artifact], timing: TimingConfig
) -> list[Samples]:
    samples = backend.run_session(models, timing)
    assert [one.sha256 for one in samples] == [model.sha256 for model in models]
    positions: list[int] = []
    spent_ns: list[int] = []
    for index, one in enumerate(samples):
        rounds = [block.round for block in one.blocks if 0 <= block.round < timing.rounds]
        assert rounds == list(range(timing.rounds))
        outside = len(one.blocks) - len(rounds)
        assert outside == (2 * timing.anchor_blocks if index == 0 else 0)
        positions += [block.position for block in one.blocks]
        for block in one.blocks:
            assert 0 < len(block.samples_ns) <= block.count
            assert min(block.samples_ns) <= block.low_quartile_ns
            assert block.low_quartile_ns <= block.median_ns
            if block.count == len(block.samples_ns) and not block.preempted:
                spent_ns.append(sum(block.samples_ns))
        assert json.loads(json.dumps(one.session)) == one.session
        assert one.session == samples[0].session
    # A hypervisor may take any one block's time away
    assert median(spent_ns) >= 0.1e6 * timing.block_ms
    assert sorted(positions) == list(range(len(positions)))
    before = [block.position for block in samples[0].blocks if block.round < 0]
    after = [block.position for block in samples[0].blocks if block.round >= timing.rounds]
    assert max(before) < min(set(range(len(positions))) - set(before))
    assert min(after) > max(set(range(len(positions))) - set(after))
    return samples


def check_pinned(
    backend: DeviceBackend, models: Sequence[Artifact], timing: TimingConfig, cpu: int
) -> None:
    """For a backend whose place is prepared with `affinity=(cpu,)`."""
    assert backend.fingerprint()["cpus"] == str(cpu)
    facts = backend.run_session(models, timing)[0].session
    assert facts["affinity"] == [cpu]


def check_order_follows_seed(
    backend: DeviceBackend, models: Sequence[Artifact], timing: TimingConfig
) -> None:
    def order(seed: int) -> list[list[int]]:
        samples = backend.run_session(models, timing.of_session(seed))
        return [[block.position for block in one.blocks] for one in samples]

    assert order(3) == order(3)
    assert order(3) != order(4)


def check_rejects_wrong_outputs(
    backend: DeviceBackend, anchor: Artifact, good: Artifact, wrong: Artifact, timing: TimingConfig
) -> None:
    with pytest.raises(ModelRejectedError, match="reference") as caught:
        backend.run_session([anchor, good, wrong], timing)
    assert set(caught.value.reasons) == {wrong.sha256}


def check_rejects_broken_file(
    backend: DeviceBackend, anchor: Artifact, broken: Artifact, timing: TimingConfig
) -> None:
    with pytest.raises(ModelRejectedError) as caught:
        backend.run_session([anchor, broken], timing)
    assert set(caught.value.reasons) == {broken.sha256}


def check_rejects_changed_file(
    backend: DeviceBackend, anchor: Artifact, good: Artifact, timing: TimingConfig
) -> None:
    stale = dataclasses.replace(good, sha256="0" * 64)
    with pytest.raises(ModelRejectedError, match="changed"):
        backend.run_session([anchor, stale], timing)


def check_rejections(
    backend: DeviceBackend, models: Mapping[str, Artifact], timing: TimingConfig
) -> None:
    """All three refusals, on an anchor and models that are `small`, `wrong` and `broken`."""
    anchor, small = models["anchor"], models["small"]
    check_rejects_wrong_outputs(backend, anchor, small, models["wrong"], timing)
    check_rejects_broken_file(backend, anchor, models["broken"], timing)
    check_rejects_changed_file(backend, anchor, small, timing)


def check_compile(
    backend: DeviceBackend,
    networks: Mapping[str, tuple[Network, Mapping[str, Tensor]]],
    folder: Path,
    library: GraphLibrary,
) -> dict[str, Artifact]:
    """Every network becomes a file of its own, the same when made again, and found again."""
    artifacts = {}
    for name, (network, feeds) in networks.items():
        path = folder / f"{name}{backend.suffix}"
        facts = {"name": name}
        assert known_artifact(path, backend=backend, provenance=facts) is None
        made = export_network(
            network, feeds, path, backend=backend, library=library, provenance=facts
        )
        assert made.path == path
        assert made.tolerance == backend.tolerance
        assert made.provenance == {**facts, **backend.build_facts()}
        assert known_artifact(path, backend=backend, provenance=facts) == made
        again = export_network(
            network, feeds, path, backend=backend, library=library, provenance=facts
        )
        assert again.sha256 == made.sha256
        artifacts[name] = made
    files = {path.name for path in folder.iterdir()}
    assert files == {f"{name}{end}" for name in networks for end in (backend.suffix, ".npz")}
    return artifacts
