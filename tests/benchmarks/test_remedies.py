"""Remedies that stayed out are what they are said to be: in full precision they change nothing."""

import pytest
import torch
from torch import nn

from benchmarks.aware import AttentionLoss, Freezing, statistical_weight
from benchmarks.remedies import (
    ClippedGroups,
    ClippedWeights,
    OutlierColumns,
    RoundedProbabilities,
    even,
    log_sqrt2,
    lowest_to_highest,
    remedied,
)
from search_spaces.schemes import SCHEMES
from supernet.distillation import kl_divergence
from supernet.families import build_supernet
from supernet.quantization import QuantizedLinear
from tests.search_spaces.policy_spaces import FAMILIES, policy_space
from tests.supernet.test_quantization import supernet

torch.set_num_threads(1)


def logits(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_reparametrized_norms_give_the_same_network_and_one_range(family):
    model, inputs = supernet(family)
    with torch.no_grad():
        for one in model.modules():  # as after training
            if isinstance(one, nn.LayerNorm | nn.RMSNorm):
                for parameter in one.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.5)
    seen = {}

    def keep(linear, x):
        seen.setdefault(linear.in_features, []).append(x)
        return linear

    arch = model.space.largest
    found = remedied(model, arch, [inputs], keep, reparametrized=True)
    with torch.no_grad():
        expected = model(inputs, arch)
        torch.testing.assert_close(logits(found(inputs)), expected, rtol=1e-3, atol=1e-4)
    first = seen[model.space.subnet(arch).embed][0]  # what query, key and value read
    widths = first.amax(0) - first.amin(0)
    torch.testing.assert_close(widths, torch.full_like(widths, widths.mean().item()))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_with_rounded_probabilities_is_attention(family):
    model, inputs = supernet(family)
    with torch.no_grad():
        expected = model(inputs, model.space.largest)
        with RoundedProbabilities(lambda x: x):
            found = model(inputs, model.space.largest)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    x = torch.tensor([0.0, 1.0, 0.5, 0.7, 1e-9])
    assert even(x, 8).tolist() == pytest.approx([0, 1, 0.5, 0.7, 0], abs=0.002)
    assert log_sqrt2(x, 4).tolist() == pytest.approx([0, 1, 0.5, 0.5**0.5, 0.5**7.5])


def test_outlier_columns_leave_the_others_a_finer_step():
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 7), torch.randn(50, 40)
    x[:, 3] *= 30
    with torch.no_grad():
        expected = linear(x)
        errors = [
            (layer(x) - expected).abs().max().item()
            for layer in (
                lowest_to_highest(linear, x),
                OutlierColumns(linear, x, None),
            )
        ]
    assert OutlierColumns(linear, x, None).columns.tolist() == [3]
    assert errors[0] > 5 * errors[1] > 0
    assert len(OutlierColumns(linear, x, 0.1).columns) == 4


@pytest.mark.parametrize("name", ["w8a8", "w4"])
def test_clipped_weights_lose_less(name):
    torch.manual_seed(0)
    linear = nn.Linear(40, 64, bias=False)
    with torch.no_grad():
        linear.weight.pow_(3).mul_(100)
    x = torch.randn(500, 40)
    clipped = (ClippedWeights if name == "w8a8" else ClippedGroups)(linear, x)
    plain = QuantizedLinear(linear, SCHEMES[name], (-1.0, 1.0))
    errors = [
        ((one.integers().floats(40) - linear.weight) * x.square().mean(0).sqrt()).square().sum()
        for one in (plain, clipped)
    ]
    assert errors[1] <= errors[0]
    assert name == "w8a8" or errors[1] < 0.97 * errors[0]


def test_statistical_scales_do_not_follow_the_largest_weight():
    weight = torch.randn(3, 64)
    before = statistical_weight(weight)
    weight[0, 0] = 100.0
    after = statistical_weight(weight)
    assert before.values.shape == (3, 2, 32)
    assert torch.equal(before.values[1:], after.values[1:])
    assert after.values[0, 0, 0] == 15
    torch.testing.assert_close(after.scale[0, 0], weight[0, :32].abs().mean() / 4)


def test_weights_that_go_to_and_fro_are_frozen():
    torch.manual_seed(0)
    model = build_supernet(policy_space("vit", ()))
    weight = Freezing(model).weights[0]
    largest = weight.detach().abs().amax().item()
    with torch.no_grad():
        weight[:, 0] = largest * 2  # sets the scale, and stays
        weight[0, 1] = largest * 0.8
    freezing = Freezing(model)
    steady = freezing.weights[1].detach().clone()
    for step in range(40):
        with torch.no_grad():
            weight[0, 1] = largest * (0.3 if step % 2 else 0.8)
        freezing()
    assert freezing.frozen[0][0, 1]
    assert freezing.frozen[0].sum() == 1
    assert torch.equal(freezing.weights[1], steady)
    held = weight[0, 1].item()
    assert 0.25 * largest <= held <= 0.75 * largest + 1e-6  # steps are a quarter of it
    with torch.no_grad():
        weight[0, 1] = largest
    freezing()
    assert weight[0, 1].item() == held


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_loses_nothing_in_attention_against_itself(family, maps):
    torch.manual_seed(0)
    model = build_supernet(policy_space(family, ()))
    inputs = torch.randn(4, 1, 8, 8) if family == "vit" else torch.randint(32, (4, 16))
    loss = AttentionLoss(model, maps)
    with loss:
        teacher = model(inputs, model.space.largest).detach()
        same = model(inputs, model.space.largest)
        assert loss(same, teacher).item() == pytest.approx(0, abs=1e-6)
        other = model(inputs, model.space.smallest)
        assert loss(other, teacher) > kl_divergence(other, teacher)
        loss(other, teacher).backward()
