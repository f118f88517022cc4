"""What a GPU says of itself, read from a library made as NVIDIA documents it."""

import sys
from pathlib import Path

import pytest

from latency import nvidia, session_process
from latency.nvml import Nvml, nvml
from latency.session_process import run_process
from tests.latency.nvml_library import library, set_reasons

ANSWER = """
import json, sys
sys.stdin.readline()
print(json.dumps({"reply": {"facts": {}}}))
"""


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, []),
        (0x1 | 0x2 | 0x4 | 0x10 | 0x100, []),  # idle, chosen clocks, power cap, sync, display
        (0x20, ["GPU thermal slowdown by software"]),
        (0x48, ["GPU hardware slowdown", "GPU thermal slowdown by hardware"]),
        (0x84, ["GPU power brake"]),
    ],
)
def test_slowdowns_are_bits(tmp_path: Path, bits: int, names: list[str]) -> None:
    driver = library(tmp_path, code=0)
    set_reasons(driver, bits)
    assert Nvml(driver).slowdowns() == names


def test_a_gpu_that_does_not_tell(tmp_path: Path) -> None:
    driver = library(tmp_path, code=3)
    set_reasons(driver, 0x48)
    assert Nvml(driver).slowdowns() == []


def test_a_session_on_the_gpu_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = library(tmp_path, code=0)
    set_reasons(driver, 0x40)
    monkeypatch.setattr(session_process, "nvml", lambda: Nvml(driver))

    def throttled(**request: object) -> object:
        asked = {"models": [{"sha256": "0"}], "affinity": None, **request}
        outcome = run_process([sys.executable, "-c", ANSWER], asked, timeout_s=30)
        return outcome["reply"]["facts"]["throttled"]

    hot = ["GPU thermal slowdown by hardware"]
    assert throttled(runtime="torch", device="cuda") == hot
    assert throttled(runtime="onnxruntime", provider="CUDAExecutionProvider") == hot
    assert throttled(runtime="tensorrt") == hot
    # A hot GPU is no concern of models on the CPU
    assert throttled(runtime="torch", device="cpu") == []


@pytest.mark.skipif(nvidia.missing() is None, reason="there is a GPU")
def test_without_a_driver() -> None:
    assert nvml() is None
