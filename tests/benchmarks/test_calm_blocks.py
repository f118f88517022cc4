"""`python -m benchmarks.calm_blocks`, in quick mode with as few sessions as a spread needs."""

import json
from pathlib import Path

import pytest

from benchmarks import calm_blocks

DIGITS = Path("examples/digits.yaml").resolve()


def test_both_kinds_of_sessions_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", str(DIGITS), "--device", "cpu-1t", "--mode", "quick"]
    assert calm_blocks.main([*arguments, "--sessions", "2"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["once", "again"]
    lines = [line for line in err.splitlines() if line.startswith("once: ")]
    assert len(lines) == 2
    assert all(" 0 repeated, 0 disturbed" in line for line in lines)
    found = json.loads((tmp_path / "runs/benchmarks/calm_blocks.json").read_text())
    assert len(found["once"]["log_ratios"]) == len(found["again"]["log_ratios"]) == 8
    # Smaller ones than the anchor and larger ones, by the same factors in both
    for once, again in zip(found["once"]["log_ratios"], found["again"]["log_ratios"], strict=True):
        assert once == pytest.approx(again, abs=0.5)
    with pytest.raises(SystemExit):
        calm_blocks.main(["--sessions", "1"])
