"""A dozen of the faults of `benchmarks.faults`, one of each kind and some more."""

from pathlib import Path

import pytest

from benchmarks import faults
from tests.latency.remote_device import Device


@pytest.mark.slow
def test_a_dozen_faults(device: Device, tmp_path: Path) -> None:
    models = faults.write_models(tmp_path)
    result = faults.run_rounds(tmp_path / "rounds", device, models, faults=12, seed=0)
    assert result["failures"] == []
    assert sum(result["faults"].values()) >= 12
