"""A dozen of the faults of `benchmarks.faults`, one of each kind and some more."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.witness import Witness
from tests.latency.remote_device import Device, wait_for


def test_a_witness_leaves_the_results_of_others_alone(tmp_path: Path) -> None:
    def finish(name: str, pid: int) -> None:
        reply = {"facts": {"pid": pid, "started_at": 1.5}, "models": []}
        (tmp_path / "sessions" / name).mkdir(parents=True)
        result = tmp_path / "sessions" / name / "result.json"
        partial = result.with_name("partial")
        partial.write_text(json.dumps({"reply": reply}))
        partial.replace(result)

    finish("before", 1)
    with closing(Witness(tmp_path)) as witness:
        finish("now", 2)
        wait_for(lambda: witness.seen)
    assert witness.seen == {"2 1.5": {}}


@pytest.mark.slow
def test_a_dozen_faults(device: Device, tmp_path: Path) -> None:
    models = faults.write_models(tmp_path)
    result = faults.run_rounds(tmp_path / "rounds", device, models, faults=12, seed=0)
    assert result["failures"] == []
    assert sum(result["faults"].values()) >= 12
