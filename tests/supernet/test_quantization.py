"""Simulated quantization: its integers, and Law 1 for subnets with a policy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces import space_from_json
from search_spaces.schemes import SCHEMES
from supernet.families import build_supernet
from supernet.integers import ROUNDINGS, integer_weight
from supernet.quantization import QuantizedLinear, full_precision, input_scale
from tests.search_spaces.policy_spaces import FAMILIES, policy_space

QUANTIZED = [name for name in SCHEMES if name != "fp32"]
INTEGER = [name for name in QUANTIZED if SCHEMES[name].integer]
BOUNDS = (-2.0, 3.0)


def linear(inputs=40, outputs=7, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def supernet(name):
    torch.manual_seed(0)
    model = build_supernet(policy_space(name)).eval()
    inputs = torch.randn(8, 1, 8, 8) if name == "vit" else torch.randint(32, (4, 16))
    model.calibrate([inputs])
    return model, inputs


@pytest.mark.parametrize("name", INTEGER)
def test_integers_are_the_nearest(name):
    weight = linear().weight.detach()
    found = integer_weight(weight, SCHEMES[name])
    floats = found.floats(weight.shape[1])
    assert floats.shape == weight.shape
    step = found.scale.abs()
    if step.dim() == 2:  # a step for each group of inputs
        step = step.repeat_interleave(32, dim=1)[:, : weight.shape[1]]
    else:
        step = step[:, None]
    error = (floats - weight).abs() / step
    # At the far end of 16 levels, one weight may be a whole step beyond
    assert error.max() <= (1.0 if SCHEMES[name].group else 0.5) + 1e-4
    assert (error <= 0.5 + 1e-4).float().mean() > 0.9
    # The largest weight is exact
    largest = weight.abs().amax(dim=1)
    assert torch.allclose(floats.abs().amax(dim=1), largest, rtol=1e-6)
    zero = integer_weight(torch.zeros(3, 40), SCHEMES[name])
    assert not zero.floats(40).any()
    assert torch.isfinite(zero.scale).all()


def test_compensation_loses_less():
    torch.manual_seed(0)
    weight = torch.randn(64, 72) * torch.rand(1, 72)
    mixed = torch.randn(500, 24) @ torch.randn(24, 72) + 0.3 * torch.randn(500, 72)
    moment = mixed.mT @ mixed / len(mixed)
    errors = []
    for rounding in ROUNDINGS:
        found = integer_weight(weight, SCHEMES["w4"], moment, rounding)
        assert found.values.dtype == torch.uint8
        assert found.values.shape == (64, 3, 32)
        assert found.values.max() <= 15
        errors.append(((found.floats(72) - weight) @ mixed.mT).square().mean().item())
    assert errors[0] > 1.4 * errors[1]
    without = integer_weight(weight, SCHEMES["w4"])
    nearest = integer_weight(weight, SCHEMES["w4"], moment, "nearest")
    assert torch.equal(without.floats(72), nearest.floats(72))


def test_a_constant_input_does_not_break_compensation():
    weight, inputs = torch.randn(5, 40), torch.zeros(10, 40)
    inputs[:, 3] = 1.0
    found = integer_weight(weight, SCHEMES["w4"], inputs.mT @ inputs / 10)
    assert torch.isfinite(found.floats(40)).all()
    dead = integer_weight(weight, SCHEMES["w4"], torch.zeros(40, 40))
    assert torch.isfinite(dead.floats(40)).all()
    huge = integer_weight(weight, SCHEMES["w4"], torch.full((40, 40), torch.inf))
    assert torch.equal(huge.floats(40), integer_weight(weight, SCHEMES["w4"]).floats(40))


def test_zero_is_exact_and_the_ends_are_near():
    for low, high in ((-2.0, 3.0), (1.0, 5.0), (-7.0, -2.0), (0.0, 0.0)):
        scale, zero = input_scale(torch.tensor(low), torch.tensor(high))
        assert 0 <= zero <= 255
        assert zero == zero.round()
        for end in (min(low, 0.0), max(high, 0.0)):
            integer = (torch.round(torch.tensor(end) / scale) + zero).clamp(0, 255)
            assert abs((integer - zero) * scale - end) <= scale / 2 + 1e-6


@pytest.mark.parametrize("name", ["w8a8", "w8a8_dynamic"])
@pytest.mark.parametrize("bias", [True, False])
def test_integer_products_are_summed_exactly(name, bias):
    layer = QuantizedLinear(linear(bias=bias), SCHEMES[name], BOUNDS).requires_grad_(False)
    x = torch.randn(5, 3, 40)
    low, high = BOUNDS if name == "w8a8" else (x.min().item(), x.max().item())
    scale = np.float32(np.float32(high) - np.float32(low)) / np.float32(255)
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, 255)
    integers = np.clip(np.rint(x.numpy() / scale) + zero, 0, 255).astype(np.int64) - int(zero)
    found = layer.integers()
    sums = integers @ found.values.numpy().astype(np.int64).T
    expected = sums.astype(np.float32) * (scale * found.scale.numpy())
    if bias:
        expected = expected + layer.bias.numpy()
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantized_layer_is_near_the_layer(name):
    layer, x = linear(), torch.randn(64, 40).clamp(*BOUNDS)
    quantized = QuantizedLinear(layer, SCHEMES[name], BOUNDS)
    with torch.no_grad():
        difference = (quantized(x) - layer(x)).abs().max().item()
    assert 0 < difference < {"w4": 0.4, "w4_nbits": 0.4, "fp16": 2e-3, "bf16": 2e-2}.get(name, 0.05)


def test_weights_that_change_are_quantized_anew():
    layer = linear()
    quantized, x = QuantizedLinear(layer, SCHEMES["w8"]), torch.randn(4, 40)
    with torch.no_grad():
        before = quantized(x)
        layer.weight.mul_(2)
        after = quantized(x)
    assert not torch.equal(before, after)


def test_static_inputs_need_a_range():
    with pytest.raises(ValueError, match="needs the range of its inputs; calibrate first"):
        QuantizedLinear(linear(), SCHEMES["w8a8"])


def test_the_full_precision_twin_shares_parameters():
    module = nn.Sequential(linear(), nn.Sequential(QuantizedLinear(linear(), SCHEMES["w4"])))
    twin = full_precision(module)
    assert type(twin[1][0]) is nn.Linear
    assert isinstance(module[1][0], QuantizedLinear)
    assert twin[1][0].weight is module[1][0].weight
    assert twin[0] is module[0]
    assert full_precision(module[0]) is module[0]
    assert list(dict(twin.named_parameters())) == list(dict(module.named_parameters()))


@pytest.mark.parametrize("family", FAMILIES)
def test_inside_the_supernet_and_extracted_it_is_the_same(family):
    """Law 1 for precision policies."""
    model, inputs = supernet(family)
    rng = np.random.default_rng(0)
    for _ in range(8):
        arch = model.space.sample(rng)
        with torch.no_grad():
            expected = model.outputs(arch, inputs)
            plain = model.extract(arch)
            network = plain.network()
            feeds = dict(zip([port.name for port in network.inputs], [inputs], strict=False))
            for port in network.inputs[1:]:
                feeds[port.name] = torch.zeros(4, port.shape[1], 0, port.shape[3])
            values = network.run(feeds)
        for port, output in zip(network.outputs, expected, strict=True):
            assert torch.equal(values[port.name], output)
        layers = [one.scheme.name for one in plain.modules() if isinstance(one, QuantizedLinear)]
        assert set(layers) == model.space.schemes(arch)


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_everywhere_is_the_subnet_without_a_policy(family):
    model, inputs = supernet(family)
    with torch.no_grad():
        full = model(inputs, model.space.largest)
        for name in QUANTIZED:
            found = model(inputs, model.space.with_scheme(model.space.largest, name))
            assert not torch.equal(found, full)
            assert (found - full).abs().mean() < (0.4 if SCHEMES[name].group else 0.05)
    fields = {k: v for k, v in model.space.to_json().items() if k != "precision"}
    base = build_supernet(space_from_json(fields)).eval()
    base.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(base(inputs, base.space.largest), full)


def test_ranges_are_of_each_subnet_and_kept():
    model, _ = supernet("vit")
    space = model.space
    largest, smallest = space.largest, space.with_scheme(space.smallest, "w8a8")
    assert model.ranges(largest) is model.ranges(space.with_scheme(largest, "w8a8"))
    assert model.ranges(smallest) != model.ranges(largest)
    known = model.ranges(largest)
    model.calibrate([torch.randn(8, 1, 8, 8)])
    assert model.ranges(largest) != known


def test_a_policy_needs_ranges_and_no_dropout():
    model, inputs = supernet("vit")
    arch = model.space.with_scheme(model.space.largest, "w8a8")
    with pytest.raises(ValueError, match="has dropout in training only"):
        model(inputs, arch, dropout=0.1)
    model.calibrate([])
    with pytest.raises(ValueError, match="call calibrate with a few batches"):
        model(inputs, arch)
    weights = model.space.with_scheme(model.space.largest, "w8")
    with torch.no_grad():
        expected = model(inputs, weights)
        assert torch.equal(copy.deepcopy(model)(inputs, weights), expected)
