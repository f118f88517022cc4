import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces import Architecture, DecoderSpace, UserError, VisionTransformerSpace
from supernet.checkpoint import load_training
from supernet.distillation import DistillationLoss, kl_divergence
from supernet.families import Supernet, build_supernet
from supernet.gradients import SharedGradients
from supernet.optimizer import WeightAverage, build_adamw
from supernet.precision import resolve_precision
from supernet.sandwich import NonFiniteError, sandwich, sandwich_step
from supernet.schedule import warmup_cosine
from supernet.training import Trainer

torch.set_num_threads(1)

LOG_KEYS = {
    "step",
    "loss_largest",
    "loss_smallest",
    "loss_random",
    "learning_rate",
    "samples_per_s",
    "elapsed_s",
    "remaining_s",
}


def tiny_space(**changes: Any) -> VisionTransformerSpace:
    values: dict[str, Any] = {
        "image_size": 4,
        "patch_size": 2,
        "channels": 1,
        "num_classes": 3,
        "head_dim": 2,
        "embed": (4, 6, 8),
        "depth": (1, 2),
        "heads": (1, 2),
        "ffn": (4, 8),
    }
    return VisionTransformerSpace(**{**values, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> Supernet:
    torch.manual_seed(seed)
    return build_supernet(tiny_space(**changes))


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Three classes of images that differ in their mean, as a function of the step."""
    generator = torch.Generator().manual_seed(step)
    targets = torch.randint(3, (8,), generator=generator)
    images = torch.randn(8, 1, 4, 4, generator=generator) * 0.5
    return images + (targets - 1)[:, None, None, None], targets


def trainer(model: nn.Module, **changes: Any) -> Trainer:
    values: dict[str, Any] = {
        "batch": batch,
        "steps": 12,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "precision": "fp32",
        "log_every": 5,
        "checkpoint_every_s": 0,
    }
    return Trainer(model, **{**values, **changes})


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


class Stopped(Exception):
    pass


def stopping_at(stop: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    def give(step: int) -> tuple[Tensor, Tensor]:
        if step == stop:
            raise Stopped
        return batch(step)

    return give


# The pieces


@given(st.integers(1, 300), st.data())
@settings(deadline=None)
def test_the_schedule_rises_to_the_peak_and_falls(steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    rates = [
        warmup_cosine(step, steps=steps, warmup_steps=warmup, learning_rate=0.5)
        for step in range(steps)
    ]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert rates[warmup] == 0.5
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_the_schedule_is_half_way_down_in_the_middle() -> None:
    rate = warmup_cosine(60, steps=100, warmup_steps=20, learning_rate=0.5)
    assert rate == pytest.approx(0.25)


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_the_sandwich_is_a_function_of_seed_and_step(seed: int, step: int, count: int) -> None:
    space = tiny_space()
    subnets = sandwich(space, seed=seed, step=step, random_subnets=count)
    assert subnets == sandwich(space, seed=seed, step=step, random_subnets=count)
    assert subnets[:2] == [space.largest, space.smallest]
    assert len(subnets) == 2 + count
    assert all(arch in space for arch in subnets)


def test_the_sandwich_can_be_uniform_over_size() -> None:
    space = tiny_space(embed=(4, 8, 16, 32), depth=(1, 2, 3, 4), ffn=(4, 16, 32))

    def spread(cost: Callable[[Architecture], float] | None) -> float:
        sizes = [
            space.cost(arch).parameters
            for step in range(60)
            for arch in sandwich(space, seed=0, step=step, cost=cost)[2:]
        ]
        return float(np.mean(np.array(sizes) > space.cost(space.largest).parameters / 2))

    assert spread(None) < 0.2
    assert 0.25 < spread(lambda arch: space.cost(arch).parameters) < 0.65


@pytest.mark.parametrize("distillation", [kl_divergence, None])
def test_a_step_adds_up_the_gradients_of_its_subnets(distillation: DistillationLoss | None) -> None:
    model, reference = tiny_model(), tiny_model()
    space = model.space
    architectures = sandwich(space, seed=0, step=3)
    architectures.append(architectures[-1])  # an equal one twice
    inputs, targets = batch(0)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    before = [p.detach().clone() for p in parameters]
    result = sandwich_step(
        model,
        SharedGradients(parameters),
        optimizer,
        inputs,
        targets,
        architectures,
        distillation=distillation,
        clip_norm=None,
    )

    teacher = reference(inputs, space.largest)
    loss = F.cross_entropy(teacher, targets, label_smoothing=0.1)
    expected = [loss.item()]
    for arch in architectures[1:]:
        logits = reference(inputs, arch)
        if distillation is None:
            student = F.cross_entropy(logits, targets, label_smoothing=0.1)
        else:
            student = distillation(logits, teacher)
        expected.append(student.item())
        loss = loss + student
    loss.backward()  # type: ignore[no-untyped-call]
    assert result.losses == pytest.approx(expected, rel=1e-5)
    for old, new, plain in zip(before, parameters, reference.parameters(), strict=True):
        assert plain.grad is not None
        torch.testing.assert_close(old - new, plain.grad, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_whole_gradient() -> None:
    model = tiny_model()
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    architectures = sandwich(model.space, seed=0, step=0)
    result = sandwich_step(
        model, SharedGradients(parameters), optimizer, *batch(0), architectures, clip_norm=0.01
    )
    moved = math.sqrt(
        sum((a - b).square().sum().item() for a, b in zip(before, parameters, strict=True))
    )
    assert result.gradient_norm > 0.01
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_only_the_largest_has_dropout() -> None:
    model = tiny_model()
    seen = []

    def forward(inputs: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        seen.append((arch, dropout))
        logits: Tensor = model(inputs, arch, dropout=dropout)
        return logits

    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    architectures = sandwich(model.space, seed=0, step=0)
    sandwich_step(
        forward, SharedGradients(parameters), optimizer, *batch(0), architectures, dropout=0.3
    )
    assert seen == [(arch, 0.3 if index == 0 else 0.0) for index, arch in enumerate(architectures)]


def test_a_step_of_a_language_model_flattens_the_tokens() -> None:
    torch.manual_seed(0)
    model = build_supernet(
        DecoderSpace(
            vocabulary=7,
            context=6,
            head_dim=2,
            group=1,
            embed=(4, 8),
            depth=(1, 2),
            heads=(1, 2),
            ffn=(4,),
        )
    )
    parameters = list(model.parameters())
    tokens = torch.randint(7, (2, 7))
    optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1)
    architectures = sandwich(model.space, seed=0, step=0)
    result = sandwich_step(
        model, SharedGradients(parameters), optimizer, tokens[:, :-1], tokens[:, 1:], architectures
    )
    assert result.losses[0] == pytest.approx(math.log(7), rel=0.3)


def test_only_matrices_of_layers_are_decayed() -> None:
    model = tiny_model()
    optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, kept = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert {name.split(".")[-1] for name in kept} >= {"bias", "class_token", "positions"}
    assert len(decayed) + len(kept) == len(names)
    tied = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    tied[1].weight = tied[0].weight
    groups = build_adamw(tied, learning_rate=1e-3, weight_decay=0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0]


def test_the_average_follows_its_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage([parameter], 0.5)
    expected = 1.0
    for step in range(12):
        with torch.no_grad():
            parameter.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.averages[0].item() == pytest.approx(expected, rel=1e-6)


def test_precision_is_what_the_hardware_has(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for flags, expected in (
        ({"avx2": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert resolve_precision("auto", cpu) == expected
        assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(UserError, match=r"'fp16' is not one of .* edit training\.precision"):
        resolve_precision("fp16", cpu)


# The loop


@pytest.mark.parametrize("distillation", ["kl", "alpha", "none"])
def test_all_subnets_learn(distillation: str) -> None:
    log: list[dict[str, Any]] = []
    model = tiny_model()
    result = trainer(model, steps=150, distillation=distillation, on_log=log.append).run()
    assert result.steps == 150
    assert result.seconds == log[-1]["elapsed_s"]
    inputs, targets = batch(10**6)
    with torch.no_grad():
        for arch in (model.space.largest, model.space.smallest):
            loss = F.cross_entropy(model(inputs, arch), targets)
            assert loss < 0.6  # log 3 = 1.1 is chance


def test_the_log_has_its_keys_and_means() -> None:
    log: list[dict[str, Any]] = []
    trainer(tiny_model(), on_log=log.append).run()
    assert [entry["step"] for entry in log] == [5, 10, 12]
    assert all(set(entry) == LOG_KEYS for entry in log)
    assert all(entry["samples_per_s"] > 0 for entry in log)
    assert [entry["remaining_s"] > 0 for entry in log] == [True, True, False]
    each: list[dict[str, Any]] = []
    trainer(tiny_model(), on_log=each.append, log_every=1).run()
    for key in ("loss_largest", "loss_smallest", "loss_random"):
        assert log[0][key] == pytest.approx(np.mean([entry[key] for entry in each[:5]]))
    nothing: list[dict[str, Any]] = []
    trainer(tiny_model(), on_log=nothing.append, random_subnets=0).run()
    assert nothing[-1]["loss_random"] is None


@pytest.mark.parametrize("stop", [1, 6, 11])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, stop: int, ema: float | None
) -> None:
    alone, whole_log = tiny_model(), list[dict[str, Any]]()
    trainer(alone, on_log=whole_log.append, ema=ema).run()
    path = tmp_path / "training.safetensors"
    log: list[dict[str, Any]] = []
    options = {"checkpoint_path": path, "on_log": log.append, "ema": ema}
    with pytest.raises(Stopped):
        trainer(tiny_model(), batch=stopping_at(stop), **options).run()
    resumed = tiny_model(seed=9)  # the checkpoint, not the start, decides
    torch.manual_seed(123)
    second = trainer(resumed, **options)
    result = second.run()
    assert same(alone, resumed)
    assert result.seconds == second.elapsed_s
    times = [entry["elapsed_s"] for entry in log]
    assert times == sorted(times)
    for key in ("step", "loss_largest", "loss_smallest", "loss_random", "learning_rate"):
        assert [entry[key] for entry in log] == [entry[key] for entry in whole_log]
    # Run once more: everything is done, and the result is the same.
    again = tiny_model(seed=5)
    assert trainer(again, **options).run() == result
    assert same(alone, again)


def test_the_average_ends_in_the_model(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    model, plain = tiny_model(), tiny_model()
    trainer(plain).run()
    trainer(model, ema=0.9, checkpoint_path=path).run()
    tensors, _ = load_training(path)
    names = [name for name, _ in model.named_parameters()]
    for index, name in enumerate(names):
        assert torch.equal(tensors[f"model.{name}"], plain.state_dict()[name])
        assert torch.equal(tensors[f"ema.{index}"], model.state_dict()[name])
    assert not same(model, plain)


def test_a_checkpoint_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    model = tiny_model()
    trainer(model, checkpoint_path=path, ema=0.5).run()
    tensors, info = load_training(path)
    count = len(list(model.parameters()))
    for part, expected in (("model.", count), ("ema.", count), ("optimizer.", 3 * count)):
        assert sum(name.startswith(part) for name in tensors) == expected
    assert tensors["rng.cpu"].dtype == torch.uint8
    assert info["step"] == 12
    assert info["elapsed_s"] > 0
    assert info["identity"]["space"] == model.space.to_json()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({}, {"steps": 13}, r"steps was 12, is 13"),
        ({}, {"seed": 4}, r"seed was 0, is 4"),
        ({}, {"ema": 0.9}, r"ema was null, is 0.9"),
        ({}, {"identity": {"data": "b"}}, r'data was "a", is "b"'),
        ({"ffn": (4, 12)}, {}, r"space\.ffn was \[4, 8\], is \[4, 12\]"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, model: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "t.safetensors"
    base = {"checkpoint_path": path, "identity": {"data": "a"}}
    trainer(tiny_model(), **base).run()
    content = path.read_bytes()
    with pytest.raises(UserError, match=message) as error:
        trainer(tiny_model(**model), **{**base, **options}).run()
    assert "is of another training" in str(error.value)
    assert "delete the file to start again" in str(error.value)
    assert path.read_bytes() == content


def test_how_often_something_is_saved_or_logged_may_change(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    trainer(tiny_model(), checkpoint_path=path).run()
    trainer(tiny_model(), checkpoint_path=path, log_every=1, checkpoint_every_s=9).run()


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"t\.safetensors is damaged .* delete it"):
        trainer(tiny_model(), checkpoint_path=path).run()


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"

    def poisoned(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batch(step)
        return (inputs * float("nan") if step == 7 else inputs), targets

    model, reference = tiny_model(), tiny_model()
    with pytest.raises(NonFiniteError) as error:
        trainer(model, batch=poisoned, checkpoint_path=path).run()
    message = str(error.value)
    assert message.startswith('training stopped at step 7: the loss of the largest subnet {"depth"')
    assert "is nan; lower learning_rate (now 0.01)" in message
    assert f"delete {path}" in message
    assert "\n" not in message
    with pytest.raises(Stopped):
        trainer(reference, batch=stopping_at(7)).run()
    assert same(model, reference)
    assert load_training(path)[1]["step"] == 7


def test_a_subnet_and_a_gradient_that_are_not_finite_are_named() -> None:
    model = tiny_model()
    space = model.space
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)

    def bad_smallest(inputs: Tensor, arch: Architecture, dropout: float = 0.0) -> Tensor:
        logits: Tensor = model(inputs, arch) * (math.inf if arch == space.smallest else 1.0)
        return logits

    architectures = sandwich(space, seed=0, step=0)
    with pytest.raises(NonFiniteError, match=r"the smallest subnet .* is nan"):
        sandwich_step(
            bad_smallest, SharedGradients(parameters), optimizer, *batch(0), architectures
        )

    parameters[0].register_hook(lambda g: g * math.inf)  # type: ignore[no-untyped-call]
    before = [p.detach().clone() for p in parameters]
    with pytest.raises(NonFiniteError, match="norm of the gradient is"):
        sandwich_step(model, SharedGradients(parameters), optimizer, *batch(0), architectures)
    assert all(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def test_bf16_trains_with_fp32_weights() -> None:
    model = tiny_model()
    log: list[dict[str, Any]] = []
    result = trainer(model, precision="bf16", on_log=log.append).run()
    assert result.precision == "bf16"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert math.isfinite(log[-1]["loss_random"])
    plain = tiny_model()
    trainer(plain).run()
    assert not same(model, plain)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1.0),
        ("warmup_steps", 12),
        ("clip_norm", 0.0),
        ("label_smoothing", 1.0),
        ("dropout", 1.0),
        ("distillation", "mse"),
        ("random_subnets", -1),
        ("ema", 1.0),
        ("seed", -1),
        ("log_every", 0),
        ("checkpoint_every_s", -1.0),
    ],
)
def test_values_outside_their_limits_are_named(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"training\.{name} .* must be"):
        trainer(tiny_model(), **{name: value})
