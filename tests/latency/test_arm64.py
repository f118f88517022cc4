"""The agent on an arm64 Linux: function, never time."""

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from latency.artifact import Artifact
from latency.backend import ModelRejectedError
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.remote_host import RemoteHost
from latency.timing import TimingConfig
from latency.transport import LocalTransport
from tests.latency.arm64_userland import MISSING, build_userland

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}; see `make arm64`"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_userland(tmp_path_factory.mktemp("arm64"))


@pytest.fixture
def backend(python: Path, tmp_path: Path) -> Iterator[OnnxRuntimeBackend]:
    place = RemoteHost(LocalTransport(str(python)), folder=str(tmp_path), silence_s=300.0)
    with closing(OnnxRuntimeBackend(threads=1, place=place)) as backend:
        yield backend


def test_agent_measures(
    backend: OnnxRuntimeBackend, models: dict[str, Artifact], tiny: TimingConfig
) -> None:
    fingerprint = backend.fingerprint()
    assert fingerprint["machine"] == "aarch64"
    assert fingerprint["runtime"].startswith("onnxruntime")
    timing = dataclasses.replace(tiny, rounds=1, min_timeout_s=600.0)
    anchor, small = backend.run_session([models["anchor"], models["small"]], timing)
    assert anchor.session["provider"] == "CPUExecutionProvider"
    assert 0 < anchor.max_abs_difference < 1e-4
    assert small.blocks[0].median_ns > 0
    with pytest.raises(ModelRejectedError, match="differs from the reference"):
        backend.run_session([models["anchor"], models["wrong"]], timing)
