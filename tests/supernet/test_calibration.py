"""Ranges of 8-bit inputs: the whole of what was seen, or less of it where that loses less."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supernet.calibration import HALVES, SHARES, counted, least_error, observed_ranges
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
    found = least_error(counted(x), bounds)
    assert bounds[0] <= found[0] + 1e-6 or bounds[0] > 0
    least = min(error(x, [share * bound for bound in bounds]) for share in SHARES)
    assert error(x, found) <= 1.05 * least  # inputs are counted as numbers of 16 bits


def test_few_far_inputs_are_clipped_and_even_ones_are_not():
    even = torch.linspace(-1, 1, 4000).view(-1, 8)
    assert least_error(counted(even), (-1.0, 1.0)) == (-1.0, 1.0)
    torch.manual_seed(0)
    x = torch.randn(40000, 8)
    x[0, :3] = 8.0
    bounds = x.min().item(), x.max().item()
    low, high = least_error(counted(x), bounds)
    assert high == pytest.approx(0.85 * 8)
    assert low / bounds[0] == pytest.approx(high / bounds[1])
    assert least_error(counted(torch.zeros(3, 8)), (0.0, 0.0)) == (0.0, 0.0)


@pytest.mark.parametrize("size", [1e-9, 1e4, 1e6, 1e30])
def test_inputs_of_any_size_are_not_cut_in_half(size):
    torch.manual_seed(0)
    x = torch.randn(4000, 8) * size
    bounds = x.min().item(), x.max().item()
    low, high = least_error(counted(x), bounds)
    assert error(x / size, (low / size, high / size)) <= 1.05 * error(
        x / size, (bounds[0] / size, bounds[1] / size)
    )


def test_inputs_are_counted_by_their_nearest_half():
    torch.manual_seed(0)
    x = torch.randn(100, 7) * 10
    x[0, :3] = torch.tensor([0.0, 1e9, -1e9])
    counts = counted(x)
    assert counts.sum() == x.numel()
    values = HALVES.repeat_interleave(counts).sort().values
    expected = x.clamp(-65504, 65504).half().float().flatten().sort().values
    assert torch.equal(values, expected)


def test_all_inputs_of_all_calls_count():
    network = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    torch.manual_seed(0)
    x = torch.randn(3, 1000, 4)
    with torch.no_grad(), observed_ranges(network) as ranges:
        network(x)
        network(x - 1)
    both = torch.cat([x, x - 1])
    bounds = both.min().item(), both.max().item()
    assert ranges == {"0": least_error(counted(both), bounds)}
