"""The process of a session, with a runtime that only passes time."""

import gc
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency import session
from latency.digest import model_sha256


class PassingRuntime:
    """A run of model i takes `run_ns[i]`."""

    def __init__(self, *run_ns: int) -> None:
        self.run_ns = run_ns
        self.ran: list[int] = []
        self.loaded = 0

    def load(self, path: Path, inputs: Mapping[str, Any]) -> "Passing":
        self.loaded += 1
        return Passing(self, self.loaded - 1)

    def facts(self) -> dict[str, Any]:
        return {}


class Passing:
    """A loaded model that only passes time."""

    outputs: Mapping[str, Any] = {}

    def __init__(self, runtime: PassingRuntime, index: int) -> None:
        self.runtime, self.index = runtime, index

    def time_run(self) -> int:
        self.runtime.ran.append(self.index)
        run_ns = self.runtime.run_ns[self.index]
        end = time.perf_counter_ns() + run_ns
        while time.perf_counter_ns() < end:
            pass
        return run_ns


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """A session turns garbage collection off for the rest of its process, which is this one."""
    yield
    gc.enable()


def request(folder: Path, models: int, **numbers: float) -> dict[str, Any]:
    feeds = folder / "feeds.npz"
    np.savez(feeds, **{"input:x": np.zeros(1)})
    wanted = []
    for index in range(models):
        path = folder / f"{index}.onnx"
        path.write_bytes(bytes([index]))
        sha256 = model_sha256(path)
        wanted.append({"sha256": sha256, "path": str(path), "feeds": str(feeds), "tolerance": 0})
    usual = {
        "threads": 1,
        "seed": 0,
        "rounds": 2,
        "block_ms": 5.0,
        "warmup_s": 0.01,
        "anchor_blocks": 2,
        "patience": 1.0,
        "baseline_ns": None,
    }
    return {"models": wanted, **usual, **numbers}


def test_whoever_runs_is_named_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that hangs is counted against the model that was named last."""
    runtime = PassingRuntime(100_000, 300_000, 200_000)
    spans: list[tuple[dict[str, Any], list[int]]] = []

    def emit(message: dict[str, Any]) -> None:
        runtime.ran = []
        spans.append((message, runtime.ran))

    monkeypatch.setattr(session, "_emit", emit)
    reply = session.serve(request(tmp_path, 3), runtime)
    assert reply["facts"]["blocks"] == 2 + 2 * 3 + 2
    named = [(message["model"], set(ran)) for message, ran in spans if "stage" in message]
    assert len(named) > 2 * reply["facts"]["blocks"]
    assert all(ran <= {model} for model, ran in named)
    assert {model for model, ran in named if ran} == {0, 1, 2}


@pytest.mark.parametrize(("anchor_ns", "probed"), [(400_000, True), (600_000, False)])
def test_a_slow_anchor_is_not_run_between_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anchor_ns: int, probed: bool
) -> None:
    patience: list[float] = []

    class Told(session.CalmBlocks):
        def __init__(self, run: Any, patience_s: float, baseline_ns: float | None) -> None:
            patience.append(patience_s)
            super().__init__(run, patience_s, baseline_ns)

    monkeypatch.setattr(session, "CalmBlocks", Told)
    session.serve(request(tmp_path, 2), PassingRuntime(anchor_ns, 100_000))
    assert [one > 0 for one in patience] == [probed]
