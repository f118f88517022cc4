"""Losses of in-place distillation: what a subnet learns from the logits of the largest one.

All take logits of any leading shape, `(*batch, classes)`, compute in float32 (float64 if
given), and give the mean over `*batch` as a scalar. The teacher gets no gradient.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

DistillationLoss = Callable[[Tensor, Tensor], Tensor]
"""(student logits, teacher logits), both `(*batch, classes)`, to a scalar."""


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the two softmax distributions, averaged over the batch.

    Args:
        student: Logits, shape `(*batch, classes)`.
        teacher: Logits, same shape; treated as a constant.

    Returns:
        Scalar, in nats, at least 0.
    """
    classes = student.shape[-1]
    return F.kl_div(
        _log_probabilities(student, classes),
        _log_probabilities(teacher.detach(), classes),
        reduction="batchmean",
        log_target=True,
    )


def adaptive_alpha_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha_min: float = -1.0,
    alpha_max: float = 1.0,
    beta: float = 5.0,
) -> Tensor:
    r"""Per sample the larger of two alpha-divergences, as in AlphaNet (arXiv:2102.07954).

    With teacher p and student q,

        D_a(p || q) = (sum_k q_k (p_k / q_k)^a - 1) / (a (a - 1)),      D_1 = KL(p || q),

    whose gradient is `-1/a sum_k q_k (p_k / q_k)^a grad log q_k`. A negative alpha punishes a
    student that is sure where the teacher is not, a positive one the opposite. The powers of the
    density ratio are clipped to `[0, beta]`, in the value and as constant weights in the gradient,
    so that a rare class cannot blow up a step. At alpha 1 nothing is clipped, as in the
    authors' code: there the weights `q_k p_k / q_k` are the teacher's probabilities, and bounded.

    Args:
        student: Logits, shape `(*batch, classes)`.
        teacher: Logits, same shape; treated as a constant.
        alpha_min: The negative order; neither 0 nor 1.
        alpha_max: The positive order; not 0.
        beta: Upper limit of `(p / q) ** alpha`.

    Returns:
        Scalar: the clipped divergence, whose gradient is the clipped gradient above.
    """
    classes = student.shape[-1]
    log_q = _log_probabilities(student, classes)
    log_p = _log_probabilities(teacher.detach(), classes)
    with torch.no_grad():
        low_value, low_weight = _alpha_terms(log_p, log_q, alpha_min, beta)
        high_value, high_weight = _alpha_terms(log_p, log_q, alpha_max, beta)
        take_low = low_value > high_value  # (samples,)
        value = torch.where(take_low, low_value, high_value).mean()
        weight = torch.where(take_low[:, None], low_weight, high_weight)
    gradient_carrier = -(weight * log_q).sum() / weight.shape[0]
    return value + (gradient_carrier - gradient_carrier.detach())


def _alpha_terms(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """Divergence `(samples,)` and gradient weights `(samples, classes)` of one order."""
    if alpha == 1.0:
        p = log_p.exp()
        return (p * (log_p - log_q)).sum(-1), p
    # Clipped in the exponent: exp of a large logit difference would overflow first.
    q_power = log_q.exp() * (alpha * (log_p - log_q)).clamp(max=math.log(beta)).exp()
    return (q_power.sum(-1) - 1.0) / (alpha * (alpha - 1.0)), q_power / alpha


def _log_probabilities(logits: Tensor, classes: int) -> Tensor:
    """`(*batch, classes)` logits to log-probabilities `(samples, classes)`, at least fp32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.log_softmax(logits.reshape(-1, classes), dim=-1, dtype=dtype)


LOSSES: Final[dict[str, DistillationLoss | None]] = {
    "kl": kl_divergence,
    "alpha": adaptive_alpha_divergence,
    "none": None,
}
"""What `training.distillation` may name; with none, all subnets learn from the labels."""
