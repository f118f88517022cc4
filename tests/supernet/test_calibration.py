"""Ranges of 8-bit inputs: the whole of what was seen, or less of it where that loses less."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supernet.calibration import SHARES, least_error, observed_ranges
from supernet.quantization import rounded_to_8_bits


def error(x, bounds):
    low, high = (torch.tensor(bound) for bound in bounds)
    return (rounded_to_8_bits(x, low, high) - x).square().sum().item()


@given(st.integers(0, 2**31), st.floats(0.1, 100), st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_no_share_of_the_whole_range_loses_less(seed, largest, shift):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 8, generator=generator) + shift
    x[0, 0] = largest
    bounds = x.min().item(), x.max().item()
    found = least_error(x, bounds)
    assert bounds[0] <= found[0] + 1e-6 or bounds[0] > 0
    assert error(x, found) == min(error(x, [share * bound for bound in bounds]) for share in SHARES)
    assert error(x, found) <= error(x, bounds)


def test_few_far_inputs_are_clipped_and_even_ones_are_not():
    even = torch.linspace(-1, 1, 4000).view(-1, 8)
    assert least_error(even, (-1.0, 1.0)) == (-1.0, 1.0)
    torch.manual_seed(0)
    x = torch.randn(40000, 8)
    x[0, :3] = 8.0
    bounds = x.min().item(), x.max().item()
    low, high = least_error(x, bounds)
    assert high == pytest.approx(0.85 * 8)
    assert low / bounds[0] == pytest.approx(high / bounds[1])
    assert least_error(torch.zeros(3, 8), (0.0, 0.0)) == (0.0, 0.0)


def test_all_inputs_count_for_the_ends_and_some_for_the_share():
    network = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    torch.manual_seed(0)
    x = torch.rand(3, 1000, 4)
    x[1, 1, 1] = 1.5  # not among the rows that the share is chosen by
    with torch.no_grad(), observed_ranges(network) as ranges:
        network(x)
        network(x - 1)
        assert ranges["0"] == (x.min().item() - 1, 1.5)
    low, high = ranges["0"]
    assert list(ranges) == ["0"]
    assert high / 1.5 in SHARES
    assert high < 1.5 + 1e-6
    assert low == pytest.approx(high / 1.5 * (x.min().item() - 1))
