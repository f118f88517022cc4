"""Quantization-aware training: what it rounds, what it trains, and that it goes on where it was."""

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces import UserError, space_from_json
from search_spaces.schemes import SCHEMES
from supernet.checkpoint import load_training
from supernet.elastic import ElasticLinear
from supernet.families import build_supernet
from supernet.quantization import QuantizedLinear
from supernet.sandwich import sandwich, with_policies
from supernet.straight_through import rounded_input, rounded_weight
from tests.search_spaces.policy_spaces import FAMILIES, policy_space
from tests.supernet.test_training import (
    Stopped,
    same,
    stopping_at,
    tiny_model,
    tiny_space,
    trainer,
)

torch.set_num_threads(1)

QUANTIZED = [name for name in SCHEMES if name != "fp32"]
POLICIES = tiny_space(precision=("fp32", "w8a8", "w4"))


def policy_trainer(model, **changes):
    return trainer(model, **{"policies": POLICIES, "policy_steps": 6, **changes})


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_trained_layer_gives_what_the_simulation_gives(name):
    torch.manual_seed(0)
    layer, x = ElasticLinear(40, 7), torch.randn(5, 40)
    bounds = (x.min().item(), x.max().item())
    simulated = QuantizedLinear(nn.Linear(40, 7), SCHEMES[name], bounds)
    simulated.weight, simulated.bias = layer.weight, layer.bias
    with torch.no_grad():
        torch.testing.assert_close(layer(x, scheme=name), simulated(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", QUANTIZED)
def test_gradients_go_straight_through(name):
    torch.manual_seed(0)
    weight = torch.randn(7, 40, requires_grad=True)
    x = torch.randn(5, 40, requires_grad=True)
    rounded = rounded_input(x, SCHEMES[name]), rounded_weight(weight, SCHEMES[name])
    out = rounded[0] @ rounded[1].mT
    slope = torch.randn_like(out)
    out.backward(slope)
    assert not torch.equal(rounded[1], weight)
    torch.testing.assert_close(weight.grad, slope.mT @ rounded[0].detach())
    torch.testing.assert_close(x.grad, slope @ rounded[1].detach())


@pytest.mark.parametrize("family", FAMILIES)
def test_training_runs_what_evaluation_runs(family):
    """For schemes that are fitted to nothing, forward passes are equal."""
    space = policy_space(family, ("fp32", "fp16", "bf16", "w8", "w4"))
    plain = space_from_json({k: v for k, v in space.to_json().items() if k != "precision"})
    torch.manual_seed(0)
    inputs = torch.randn(4, 1, 8, 8) if family == "vit" else torch.randint(32, (4, 16))
    trained, evaluated = build_supernet(plain).train(), build_supernet(space).eval()
    evaluated.load_state_dict(trained.state_dict())
    rng = np.random.default_rng(0)
    for _ in range(6):
        arch = space.sample(rng)
        with torch.no_grad():
            expected = evaluated(inputs, arch)
        found = trained(inputs, arch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        found.sum().backward()


def test_the_teacher_is_in_fp32_and_all_others_have_policies():
    space, drawn = tiny_space(), []
    for step in range(40):
        architectures = sandwich(space, seed=0, step=step)
        found = with_policies(architectures, POLICIES, seed=0, step=step)
        assert found == with_policies(architectures, POLICIES, seed=0, step=step)
        assert found[0] == space.largest
        assert all(arch in POLICIES for arch in found[1:])
        widths = [{k: v for k, v in arch.items() if k in space.names} for arch in found]
        assert widths == [dict(arch) for arch in (*architectures, space.largest)]
        drawn += found[1:]
    schemes = [{v for k, v in arch.items() if k.startswith("precision")} for arch in drawn]
    alone = sum(len(names) == 1 for names in schemes) / len(schemes)
    assert 0.4 < alone < 0.7
    assert all({name} in schemes for name in POLICIES.precision)
    assert with_policies([space.largest], space, seed=0, step=0) == [space.largest] * 2


def test_the_steps_before_are_those_of_a_training_without_policies():
    alone, stopped = tiny_model(), tiny_model()
    trainer(alone).run()
    with pytest.raises(Stopped):
        policy_trainer(stopped, batch=stopping_at(12)).run()
    assert same(alone, stopped)


@pytest.mark.parametrize("stop", [5, 12, 15])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_training_ends_with_the_same_weights(tmp_path, stop, ema):
    alone, whole_log = tiny_model(), []
    result = policy_trainer(alone, on_log=whole_log.append, ema=ema).run()
    assert result.steps == 18
    plain = tiny_model()
    trainer(plain, ema=ema).run()
    assert not same(alone, plain)
    path, log = tmp_path / "training.safetensors", []
    options = {"checkpoint_path": path, "on_log": log.append, "ema": ema}
    with pytest.raises(Stopped):
        policy_trainer(tiny_model(), batch=stopping_at(stop), **options).run()
    resumed = tiny_model(seed=9)
    policy_trainer(resumed, **options).run()
    assert same(alone, resumed)
    for entry, again in zip(whole_log, log, strict=True):
        for key in ("step", "loss_largest", "loss_smallest", "loss_random", "learning_rate"):
            assert entry[key] == again[key]


def test_the_log_goes_on_and_the_rate_rises_again():
    log = []
    policy_trainer(tiny_model(), policy_steps=20, log_every=1, on_log=log.append).run()
    assert [entry["step"] for entry in log] == list(range(1, 33))
    rates = [entry["learning_rate"] for entry in log]
    assert rates[12] > rates[11]
    assert max(rates[12:]) == rates[14] == pytest.approx(3e-3)
    assert rates[-1] < 3e-4
    assert log[-1]["remaining_s"] == 0


def test_a_trained_model_can_be_given():
    model = tiny_model()
    trainer(model, steps=100).run()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = policy_trainer(model, steps=0, warmup_steps=0, distillation="none").run()
    assert result.steps == 6
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_policy_is_another_training(tmp_path):
    path = tmp_path / "training.safetensors"
    with pytest.raises(Stopped):
        policy_trainer(tiny_model(), batch=stopping_at(14), checkpoint_path=path).run()
    others = tiny_space(precision=("fp32", "w4"))
    with pytest.raises(UserError, match=r"policies was .*w8a8.*, is .*Restore the setting"):
        policy_trainer(tiny_model(), policies=others, checkpoint_path=path).run()
    with pytest.raises(UserError, match="policy_steps was 6, is null"):
        trainer(tiny_model(), checkpoint_path=path).run()
    assert "policies" not in _identity(tmp_path)


def _identity(folder):
    path = folder / "plain.safetensors"
    trainer(tiny_model(), checkpoint_path=path).run()
    return load_training(path)[1]["identity"]


def test_the_model_itself_knows_no_policies():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the model's space has policies"):
        policy_trainer(build_supernet(POLICIES))


def test_steps_with_policies_need_some():
    with pytest.raises(UserError, match=r"training\.policy_steps 6 must be 0 without policies"):
        trainer(tiny_model(), policy_steps=6)
    with pytest.raises(UserError, match=r"training\.policy_steps -1 must be at least 0"):
        policy_trainer(tiny_model(), policy_steps=-1)
    with pytest.raises(UserError, match=r"training\.steps -1 must be at least 0"):
        policy_trainer(tiny_model(), steps=-1)
