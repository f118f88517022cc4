"""`python -m benchmarks.spinning`, as short as it can be."""

import json

import pytest

from benchmarks import spinning


def test_the_kinds_of_threads_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert spinning.main(["--sessions", "1", "--rounds", "2"]) == 0
    out, _ = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()][1] == "1 thread"
    found = json.loads((tmp_path / "runs/benchmarks/spinning.json").read_text())
    rows = [found[kind] for kind in found if "thread" in kind or "spinning" in kind]
    assert len(rows) == 3
    assert all(0.05 < row["median_ms"] < 50 and row["deviation"] > 0 for row in rows)
    with pytest.raises(SystemExit):
        spinning.main(["--rounds", "1"])
