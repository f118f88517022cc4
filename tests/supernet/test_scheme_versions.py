"""What a version of a scheme gives stays as it is: stored qualities are named by it.

Where a test fails because numbers were meant to change, raise `Scheme.version` and write the new
ones beside the old: `python -m tests.supernet.test_scheme_versions`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from search_spaces.schemes import FULL, SCHEMES, later_versions
from supernet.calibration import observed_moments, observed_ranges
from supernet.quantization import QuantizedLinear

ASSET = Path(__file__).parents[1] / "assets" / "scheme-outputs.json"
NAMES = [name for name in SCHEMES if name != FULL]


@torch.no_grad()
def outputs(name):
    """Of a layer with 40 inputs, calibrated on some with a few far ones; shape `(3, 4)`."""
    place = torch.arange(400, dtype=torch.float64)
    linear = nn.Linear(40, 4)
    linear.weight.copy_((1.7 * place[:160]).sin().view(4, 40))
    linear.bias.copy_(place[:4].cos())
    seen = (2.3 * place).sin().view(10, 40).float()
    seen[:, 7] *= 9
    with observed_ranges(linear) as ranges, observed_moments(linear) as moments:
        linear(seen)
    return QuantizedLinear(linear, SCHEMES[name], ranges[""], moments[""])(seen[2:5])


@pytest.mark.parametrize("name", NAMES)
def test_a_version_gives_what_it_gave(name):
    stored = json.loads(ASSET.read_text())[name]
    expected = torch.tensor(stored[str(SCHEMES[name].version)])
    torch.testing.assert_close(outputs(name), expected, rtol=1e-5, atol=1e-5)


def test_first_versions_need_no_mention(monkeypatch):
    assert later_versions([FULL]) == {}
    monkeypatch.setitem(SCHEMES, "w8", replace(SCHEMES["w8"], version=3))
    assert later_versions(["w8", "w4"]) == {"w8": 3}


def write_assets():
    """Add what the schemes give now, and keep what other versions of them gave."""
    known = json.loads(ASSET.read_text()) if ASSET.exists() else {}
    for name in NAMES:
        known.setdefault(name, {})[str(SCHEMES[name].version)] = outputs(name).tolist()
    ASSET.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    write_assets()
