from contextlib import closing
from pathlib import Path

from latency.artifact import Artifact
from latency.compute_plan import compute_plan_of
from latency.database import connect
from latency.store import LatencyStore, ModelRecord, SessionRecord

ON_THE_ENGINE = {"MLNeuralEngineComputeDevice": {"ios17.conv": 1}}
MIXED = {
    "MLNeuralEngineComputeDevice": {"ios17.conv": 2},
    "MLCPUComputeDevice": {"ios17.softmax": 1, "ios16.softmax": 2},
}


def artifact(digit: str) -> Artifact:
    return Artifact(
        path=Path("m.mlpackage"), sha256=digit * 64, feeds=Path("m.npz"), signature="x float32[1]"
    )


def session(name: str, status: str, models: str, facts: dict[str, object]) -> SessionRecord:
    return SessionRecord(
        session_id=name,
        outcome="accepted",
        seed=0,
        started_at="",
        ended_at="",
        timing={},
        facts=facts,
        models=[ModelRecord(artifact=artifact(digit), status=status) for digit in models],
    )


def test_a_model_has_the_plan_of_its_place_in_its_last_session(tmp_path: Path) -> None:
    mac = {"soc": "example"}
    with closing(connect(tmp_path / "run.db")) as connection:
        store = LatencyStore(connection)
        device = store.add_device(mac)
        for record in (
            session("1", "ok", "fa", {"compute_plans": [ON_THE_ENGINE, ON_THE_ENGINE]}),
            # Not in the order of the hashes
            session("2", "ok", "fca", {"compute_plans": [ON_THE_ENGINE, ON_THE_ENGINE, MIXED]}),
            session("3", "cut", "fa", {}),
            session("4", "ok", "fb", {"threads": 1}),
        ):
            store.add_session(device, 1, "quick", record)
        assert compute_plan_of(artifact("a"), mac, store) == {
            "compute_plan": {"NeuralEngine": {"conv": 2}, "CPU": {"softmax": 3}}
        }
        assert compute_plan_of(artifact("c"), mac, store)["compute_plan"]["NeuralEngine"] == {
            "conv": 1
        }
        assert compute_plan_of(artifact("b"), mac, store) == {}  # a runtime without plans
        assert compute_plan_of(artifact("d"), mac, store) == {}  # never timed
        assert compute_plan_of(artifact("a"), {"soc": "other"}, store) == {}
