import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from supernet.distillation import LOSSES as NAMED
from supernet.distillation import adaptive_alpha_divergence, kl_divergence

BETA = 5.0
LOSSES = {name: loss for name, loss in NAMED.items() if loss is not None}


def slow_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def slow_alpha(q: list[float], p: list[float], alpha: float) -> tuple[float, list[float]]:
    """Value, and gradient with respect to the student's logits, in plain float64."""
    if alpha == 1.0:
        value = sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True))
        weights = list(p)
    else:
        powers = [min((pk / qk) ** alpha, BETA) for pk, qk in zip(p, q, strict=True)]
        expected = sum(qk * power for qk, power in zip(q, powers, strict=True))
        value = (expected - 1) / (alpha * (alpha - 1))
        weights = [qk * power / alpha for qk, power in zip(q, powers, strict=True)]
    # - sum_k w_k d log q_k / d z_j  =  q_j sum_k w_k - w_j
    return value, [qj * sum(weights) - wj for qj, wj in zip(q, weights, strict=True)]


def slow_adaptive(
    student: NDArray[np.float64], teacher: NDArray[np.float64]
) -> tuple[float, Tensor]:
    total, gradient = 0.0, []
    for z, t in zip(student.tolist(), teacher.tolist(), strict=True):
        low, high = (slow_alpha(slow_softmax(z), slow_softmax(t), alpha) for alpha in (-1.0, 1.0))
        value, row = low if low[0] > high[0] else high
        total += value
        gradient.append([g / len(student) for g in row])
    return total / len(student), torch.tensor(gradient)


@pytest.mark.parametrize("scale", [0.3, 2.0, 8.0])
def test_adaptive_alpha_equals_the_slow_reference(scale: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = scale * rng.normal(size=(2, 64, 7))
    logits = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    loss = adaptive_alpha_divergence(logits, torch.tensor(teacher, dtype=torch.float32))
    loss.backward()  # type: ignore[no-untyped-call]
    value, gradient = slow_adaptive(student, teacher)
    assert loss.item() == pytest.approx(value, rel=2e-5)
    torch.testing.assert_close(logits.grad, gradient, rtol=1e-4, atol=1e-6)


def test_both_orders_and_the_clipping_occur_in_the_reference_test() -> None:
    rng = np.random.default_rng(0)
    student, teacher = 2.0 * rng.normal(size=(2, 64, 7))
    low = high = clipped = 0
    for z, t in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = slow_softmax(z), slow_softmax(t)
        taken = slow_alpha(q, p, -1.0)[0] > slow_alpha(q, p, 1.0)[0]
        low, high = low + taken, high + (not taken)
        clipped += any(qk / pk > BETA for pk, qk in zip(p, q, strict=True))
    assert low > 5
    assert high > 5
    assert clipped > 5


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_is_that_of_the_value_where_nothing_is_clipped(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = 0.2 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    torch.autograd.gradcheck(LOSSES[name], (student, teacher))


@given(
    st.integers(1, 4),
    st.integers(2, 6),
    st.floats(0.1, 100.0),
    st.integers(0, 2**31),
    st.sampled_from(sorted(LOSSES)),
)
@settings(deadline=None, max_examples=60)
def test_laws(samples: int, classes: int, scale: float, seed: int, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = (torch.randn(samples, classes, generator=generator) * scale).requires_grad_()
    teacher = (torch.randn(samples, classes, generator=generator) * scale).requires_grad_()
    loss = LOSSES[name](student, teacher)
    loss.backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert loss.item() >= -1e-5
    # A shift of all logits changes nothing, so the gradient has no component along it.
    torch.testing.assert_close(student.grad.sum(-1), torch.zeros(samples), rtol=0, atol=1e-4)
    # Weights are at most beta, so the gradient is bounded, however far apart the two are.
    assert student.grad.abs().sum().item() <= 2 * BETA + 1e-4


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_equal_logits_give_zero_loss_and_gradient(name: str) -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = LOSSES[name](logits, logits)
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(loss.item()) < 1e-6
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_leading_shape_does_not_matter_and_bf16_is_computed_in_fp32(name: str) -> None:
    student, teacher = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    flat = LOSSES[name](student.view(12, 5), teacher.view(12, 5))
    assert LOSSES[name](student, teacher).item() == pytest.approx(flat.item(), rel=1e-6)
    assert LOSSES[name](student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


def test_kl_is_the_textbook_sum() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(student, teacher).item() == pytest.approx(expected, rel=1e-6)
