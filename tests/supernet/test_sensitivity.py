"""Sensitivities: zero for fp32, larger for coarser schemes, near the loss that a policy adds."""

import pytest
import torch
from torch.nn import functional as F

from search_spaces.schemes import FULL, PARTS, SCHEMES
from supernet.sensitivity import WORST, sensitivities
from tests.supernet.test_quantization import supernet


def labels(model, inputs):
    """What the subnet itself would say, at random: its gradients are those of its own samples."""
    torch.manual_seed(3)
    with torch.no_grad():
        (logits, *_) = model.outputs(model.space.largest, inputs)
    return torch.distributions.Categorical(logits=logits).sample()


@pytest.mark.parametrize("family", ["vit", "decoder"])
def test_a_coarser_scheme_loses_more(family):
    model, inputs = supernet(family)
    found = sensitivities(model, model.space.smallest, inputs, labels(model, inputs))
    kept = [layer.index for layer in model.space.subnet(model.space.smallest).layers]
    assert set(found) == {f"precision.{part}.{index}" for part in PARTS for index in kept}
    for losses in found.values():
        assert set(losses) == set(SCHEMES)
        assert losses[FULL] == 0
        assert losses["w4"] > losses["w8"] > 0
        assert losses["w8a8"] > losses["w8"]
        assert losses["w4"] > losses["bf16"] > losses["fp16"] > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_no_number_is_the_worst_loss():
    model, inputs = supernet("vit")
    with torch.no_grad():
        model.ffn[0].up.weight[0, 0] = torch.nan
    found = sensitivities(model, model.space.largest, inputs, torch.zeros(8, dtype=torch.int64))
    assert {losses[FULL] for losses in found.values()} == {0}
    assert {losses["w4"] for losses in found.values()} == {WORST / 8}


def test_the_sum_is_near_the_divergence_of_a_policy():
    """On samples of the network's own, the expected loss is what the outputs diverge by."""
    model, _ = supernet("vit")
    torch.manual_seed(0)
    inputs = torch.randn(512, 1, 8, 8)
    model.calibrate([inputs])
    arch = model.space.largest
    found = sensitivities(model, arch, inputs, labels(model, inputs))
    predicted = sum(losses["w4"] for losses in found.values())
    with torch.no_grad():
        full = F.log_softmax(model(inputs, arch), dim=-1)
        coarse = F.log_softmax(model(inputs, model.space.with_scheme(arch, "w4")), dim=-1)
    divergence = F.kl_div(coarse, full, log_target=True, reduction="batchmean").item()
    assert 0.3 < predicted / divergence < 3
