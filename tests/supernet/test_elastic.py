"""Elastic layers: a slice is the layer that its numbers say, whatever happened to the weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from supernet.elastic import (
    ElasticEmbedding,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticPatchEmbedding,
    ElasticRMSNorm,
    copy_prefix,
)

torch.set_num_threads(1)

WIDTH = st.integers(1, 6)


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def linear(layer, x, out):
    bias = None if layer.bias is None else layer.bias[:out]
    return F.linear(x, layer.weight[:out, : x.shape[-1]], bias)


CASES = {
    "linear": (
        lambda: ElasticLinear(6, 6),
        lambda layer, i, o: layer(torch.ones(2, 3, i) + torch.arange(i), o),
        lambda layer, i, o: linear(layer, torch.ones(2, 3, i) + torch.arange(i), o),
    ),
    "linear without bias": (
        lambda: ElasticLinear(6, 6, bias=False),
        lambda layer, i, o: layer(torch.ones(2, i), o),
        lambda layer, i, o: linear(layer, torch.ones(2, i), o),
    ),
    "layer norm": (
        lambda: ElasticLayerNorm(6),
        lambda layer, i, o: layer(torch.arange(2.0 * i).view(2, i)),
        lambda layer, i, o: F.layer_norm(
            torch.arange(2.0 * i).view(2, i), (i,), layer.weight[:i], layer.bias[:i], 1e-5
        ),
    ),
    "rms norm": (
        lambda: ElasticRMSNorm(6, eps=1e-3),
        lambda layer, i, o: layer(torch.arange(2.0 * i).view(2, i)),
        lambda layer, i, o: F.rms_norm(
            torch.arange(2.0 * i).view(2, i), (i,), layer.weight[:i], 1e-3
        ),
    ),
    "embedding": (
        lambda: ElasticEmbedding(5, 6),
        lambda layer, i, o: layer(torch.tensor([[0, 4], [2, 2]]), o),
        lambda layer, i, o: layer.weight[torch.tensor([[0, 4], [2, 2]]), :o],
    ),
    "patches": (
        lambda: ElasticPatchEmbedding(2, 6, 3),
        lambda layer, i, o: layer(torch.arange(72.0).view(1, 2, 6, 6), o),
        lambda layer, i, o: F.conv2d(
            torch.arange(72.0).view(1, 2, 6, 6), layer.weight[:o], layer.bias[:o], 3
        ),
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    build, run, expected = CASES[request.param]
    return randomised(build()), run, expected


@pytest.mark.parametrize("name", CASES)
@given(i=WIDTH, o=WIDTH)
@settings(max_examples=40, deadline=None)
def test_a_slice_is_the_layer_of_that_part(name, i, o):
    build, run, expected = CASES[name]
    layer = randomised(build())
    torch.testing.assert_close(run(layer, i, o), expected(layer, i, o))
    with torch.no_grad():
        for _ in range(2):  # the second time from what is remembered
            torch.testing.assert_close(run(layer, i, o), expected(layer, i, o))


def replace_all(layer):
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach() + 1))


def replace_data(layer):
    for parameter in layer.parameters():
        parameter.data = parameter.data + 1


def replace_last_data(layer):
    """The bias where there is one."""
    parameter = list(layer.parameters())[-1]
    parameter.data = parameter.data + 1


def replace_last(layer):
    name, parameter = list(layer.named_parameters())[-1]
    setattr(layer, name, nn.Parameter(parameter.detach() + 1))


def change_in_place(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(-0.5)


def load(layer):
    state = {name: tensor + 1 for name, tensor in layer.state_dict().items()}
    layer.load_state_dict(state)


def load_by_assignment(layer):
    state = {name: tensor + 1 for name, tensor in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def step(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def cast_and_back(layer):
    layer.double().float()
    change_in_place(layer)


CHANGES = (
    change_in_place,
    load,
    load_by_assignment,
    step,
    cast_and_back,
    replace_all,
    replace_data,
    replace_last_data,
    replace_last,
)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES)
def test_remembered_views_follow_the_weights(case, change, mode):
    layer, run, expected = case
    with mode():
        before = run(layer, 3, 4)
        run(layer, 6, 6)
    change(layer)
    for again in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with again():
            found = run(layer, 3, 4)
            torch.testing.assert_close(found, expected(layer, 3, 4))
            torch.testing.assert_close(run(layer, 6, 6), expected(layer, 6, 6))
    assert not torch.equal(found, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_copy_is_of_its_own(case, mode):
    layer, run, expected = case
    with mode():
        before = run(layer, 3, 4)
    other = copy.deepcopy(layer)
    change_in_place(other)
    with mode():
        torch.testing.assert_close(run(layer, 3, 4), before)
        torch.testing.assert_close(run(other, 3, 4), expected(other, 3, 4))
    change_in_place(layer)
    change_in_place(layer)
    with mode():
        torch.testing.assert_close(run(layer, 3, 4), expected(layer, 3, 4))
        torch.testing.assert_close(run(other, 3, 4), expected(other, 3, 4))


def test_double_precision(case):
    layer, run, _ = case
    with torch.no_grad():
        single = run(layer, 3, 4)
    layer.double()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            found = [run(layer, 3, 4) for _ in range(2)]
    finally:
        torch.set_default_dtype(torch.float32)
    for double in found:
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single)


def test_what_is_remembered_has_no_gradient_and_what_is_trained_has(case):
    layer, run, _ = case
    with torch.no_grad():
        assert not run(layer, 3, 4).requires_grad
    out = run(layer, 3, 4)
    assert out.requires_grad
    out.sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.shape == parameter.shape
        parameter.grad = None
    with torch.no_grad():
        assert not run(layer, 3, 4).requires_grad


def test_views_are_no_part_of_what_is_saved(case):
    layer, run, _ = case
    names = set(layer.state_dict())
    with torch.no_grad():
        run(layer, 3, 4)
    assert set(layer.state_dict()) == names == {name for name, _ in layer.named_parameters()}


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (7, 6, "slice 6 x 7 does not fit in the layer's 5 x 6"),
        (7, None, "slice 5 x 7 does not fit in the layer's 5 x 6"),
        (6, 6, "slice 6 x 6 does not fit in the layer's 5 x 6"),
        (6, 0, "slice 0 x 6 does not fit in the layer's 5 x 6"),
        (6, -1, "slice -1 x 6 does not fit in the layer's 5 x 6"),
    ],
)
def test_slices_that_do_not_fit(inputs, out, message):
    layer = ElasticLinear(6, 5)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            layer(torch.zeros(1, 6))
            for _ in range(2):
                with pytest.raises(ValueError, match=message):
                    layer(torch.zeros(1, inputs), out)


def test_copy_prefix_takes_the_layers_that_it_is_told():
    elastic = nn.Module()
    elastic.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    elastic.bias = nn.Parameter(torch.randn(4))
    randomised(elastic)
    plain = nn.Module()
    plain.blocks = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1)])
    plain.bias = nn.Parameter(torch.zeros(2))
    copy_prefix(plain, elastic, [0, 2])
    assert torch.equal(plain.blocks[0].weight, elastic.blocks[0].weight[:3, :2])
    assert torch.equal(plain.blocks[1].weight, elastic.blocks[2].weight[:1, :3])
    assert torch.equal(plain.blocks[1].bias, elastic.blocks[2].bias[:1])
    assert torch.equal(plain.bias, elastic.bias[:2])
    change_in_place(elastic)
    assert not torch.equal(plain.bias, elastic.bias[:2])
