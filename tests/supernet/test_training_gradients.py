import gc
import warnings
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.gradients import SharedGradients, prefix


def loss_of(weight: nn.Parameter, bias: nn.Parameter, width: int, inputs: Tensor) -> Tensor:
    hidden = F.linear(inputs, prefix(weight, width, inputs.shape[1]), prefix(bias, width))
    return hidden.square().sum()


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 5, generator=generator))
    return weight, nn.Parameter(torch.randn(6, generator=generator))


def test_gradients_of_prefixes_are_those_of_slices_bit_for_bit() -> None:
    shapes = [(6, 5), (2, 3), (4, 5), (6, 1), (2, 3)]
    inputs = [torch.randn(7, columns) for _, columns in shapes]
    plain = parameters()
    for (rows, _), x in zip(shapes, inputs, strict=True):
        loss_of(*plain, rows, x).backward()  # type: ignore[no-untyped-call]
    shared = parameters()
    gradients = SharedGradients(shared)
    for _ in range(2):  # the second time with leaves that are there already
        gradients.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for (rows, _), x in zip(shapes, inputs, strict=True):
                with gradients.collect():
                    loss = loss_of(*shared, rows, x)
                loss.backward()  # type: ignore[no-untyped-call]
        for a, b in zip(plain, shared, strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert torch.equal(a.grad, b.grad)
    flat = torch.cat([p.grad.flatten() for p in plain if p.grad is not None])
    assert torch.equal(gradients.buffer, flat)
    assert gradients.norm().item() == pytest.approx(flat.norm().item())


def test_leaves_follow_values_that_change_in_place() -> None:
    weight, bias = parameters()
    gradients = SharedGradients([weight, bias])
    with gradients.collect():
        leaf = prefix(weight, 2, 2)
        with torch.no_grad():
            weight.fill_(3.0)
        assert prefix(weight, 2, 2) is leaf
        assert leaf.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_outside_collect_a_prefix_is_a_slice_of_the_parameter() -> None:
    weight, bias = parameters()
    gradients = SharedGradients([weight, bias])
    with gradients.collect():
        leaf = prefix(weight, 2, 2)
    part = prefix(weight, 2, 2)
    assert part is not leaf
    (gradient,) = torch.autograd.grad(part.sum(), weight)
    assert gradient.sum() == 4
    assert prefix(weight, 6, 5) is weight
    assert prefix(weight, 6) is weight
    assert prefix(weight, 2).shape == (2, 5)
    with gradients.collect():
        assert prefix(weight, 2).shape == (2, 5)
        assert prefix(weight, 6) is weight


def test_clear_takes_the_gradients_back() -> None:
    weight, bias = parameters()
    gradients = SharedGradients([weight, bias])
    weight.grad, bias.grad = None, torch.ones(6)
    gradients.clear()
    weight.sum().backward()  # type: ignore[no-untyped-call]
    assert gradients.buffer.tolist() == [1.0] * 30 + [0.0] * 6


def test_nothing_outlives_its_owner() -> None:
    weight, bias = parameters()
    gradients = SharedGradients([weight, bias])
    gradients.clear()
    with gradients.collect():
        loss = loss_of(weight, bias, 2, torch.ones(1, 3))
    loss.backward()  # type: ignore[no-untyped-call]
    reference = weakref.ref(gradients)
    del gradients, loss
    gc.collect()
    assert reference() is None
