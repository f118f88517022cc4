"""Elastic layers: a slice is the layer that its numbers say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from supernet.elastic import (
    ElasticEmbedding,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticPatchEmbedding,
    ElasticRMSNorm,
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
        torch.testing.assert_close(run(layer, i, o), expected(layer, i, o))


def test_double_precision(case):
    layer, run, _ = case
    with torch.no_grad():
        single = run(layer, 3, 4)
    layer.double()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            double = run(layer, 3, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


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
