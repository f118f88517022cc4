"""The problems with a really trained supernet: digits and the language model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import FOLDER
from benchmarks.search_problems.cost import Column, latency_ms, size_mb
from benchmarks.search_problems.problem import SearchProblem
from benchmarks.search_problems.stored_supernet import StoredSupernet, stored_supernet
from search_spaces import Architecture, Workload

SUPERNETS = FOLDER / "search" / "supernets"
"""Run directories of the supernets; trained at the first use, in minutes."""

_EXAMPLES = {
    "small": ("examples/digits.yaml", ("space.depth=[1, 2, 3]", "training.steps=800")),
    "digits": ("examples/digits.yaml", ("training.steps=1200",)),
    # A shorter training and less validation text than the example, so that the whole space can
    # be evaluated; the shape of the problem is the same.
    "text": (
        "examples/text.yaml",
        ("training.steps=300", "training.warmup_steps=30", "task.evaluation_tokens=2048"),
    ),
}


@cache
def _supernet(name: str, folder: Path) -> StoredSupernet:
    example, overrides = _EXAMPLES[name]
    return stored_supernet(example, folder / name, overrides)


def supernet_of(problem: str) -> StoredSupernet:
    """The supernet `small`, `digits` or `text`; trained at the first use."""
    return _supernet(problem, SUPERNETS)


def _problem(
    name: str,
    title: str,
    supernet: StoredSupernet,
    quality: str,
    cheap: dict[str, Column],
    *,
    constraints: Sequence[str] = (),
    enumerable: bool = False,
    reference_budget: int = 0,
) -> SearchProblem:
    def evaluate(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return supernet.metrics(architectures, [quality])

    def costs(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.stack([column(architectures) for column in cheap.values()], axis=1)

    return SearchProblem(
        name=name,
        title=title,
        space=supernet.space,
        evaluate=evaluate,
        cheap=costs,
        names=(quality, *cheap),
        constraints=tuple(constraints),
        enumerable=enumerable,
        reference_budget=reference_budget,
    )


def small() -> SearchProblem:
    """A digits space of 5652 subnets, all of them evaluated."""
    net = _supernet("small", SUPERNETS)
    costs = {"latency_ms": latency_ms(net.space, Workload())}
    title = "digits, 5652 subnets"
    return _problem("small", title, net, "cross_entropy", costs, enumerable=True)


def digits() -> SearchProblem:
    """The space of `examples/digits.yaml`."""
    net = _supernet("digits", SUPERNETS)
    costs = {"latency_ms": latency_ms(net.space, Workload())}
    return _problem("digits", "digits", net, "cross_entropy", costs, reference_budget=3000)


def bounded() -> SearchProblem:
    """The same, with a bound on what has to be evaluated and one on what is known."""
    net = _supernet("digits", SUPERNETS)
    return _problem(
        "bounded",
        "digits, two bounds",
        net,
        "cross_entropy",
        {"latency_ms": latency_ms(net.space, Workload())},
        constraints=("cross_entropy <= 0.19", "latency_ms <= 0.09"),
        reference_budget=3000,
    )


def three() -> SearchProblem:
    """The same with the size of the weights as a third objective."""
    net = _supernet("digits", SUPERNETS)
    costs = {"latency_ms": latency_ms(net.space, Workload()), "size_mb": size_mb(net.space)}
    title = "digits, 3 objectives"
    return _problem("three", title, net, "cross_entropy", costs, reference_budget=3000)


def text() -> SearchProblem:
    """The space of `examples/text.yaml`, all 14,040 subnets evaluated; prefill and decode."""
    net = _supernet("text", SUPERNETS)
    costs = {
        "prefill_ms": latency_ms(net.space, Workload(sequence=128)),
        "decode_ms": latency_ms(net.space, Workload(sequence=1, past=127)),
    }
    title = "language model, 3 objectives"
    return _problem("text", title, net, "bits_per_byte", costs, enumerable=True)
