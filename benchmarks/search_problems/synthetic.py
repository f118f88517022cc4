"""Deterministic black boxes of 42 to 60 genes that resemble what an outsider would test us with.

Not sums of monotone terms: choices whose order means nothing, optima inside the range, genes that
matter only with others, bottlenecks, steps. Their tables are drawn from fixed seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_problems.problem import SearchProblem
from search_spaces import Architecture, SearchSpace

Floats = NDArray[np.float64]
Genes = NDArray[np.int64]

REFERENCE_BUDGET = 12_000


def layered() -> SearchProblem:
    """Twenty layers of three genes, 2 objectives: heads, a width, and an unordered operator.

    The loss saturates in each layer and suffers where neighbouring layers do not fit together; each
    layer has an operator that suits it, and which one depends on the width. The cost runs in steps,
    as tiles do, and the slowest of five stages counts once more.
    """
    layers = 20
    rng = np.random.default_rng(20220501)
    space = SearchSpace(
        {
            name: values
            for i in range(layers)
            for name, values in (
                (f"heads.{i}", (1, 2, 4, 8)),
                (f"width.{i}", (1, 2, 3, 4, 6, 8)),
                (f"operator.{i}", ("a", "b", "c")),
            )
        }
    )
    heads, width = np.array([1, 2, 4, 8]), np.array([1, 2, 3, 4, 6, 8])
    weight = rng.gamma(1.5, 1.0, layers)
    appetite = rng.uniform(0.2, 1.0, (2, layers))
    suits = rng.normal(0.0, 0.35, (layers, 6, 3))
    tile = np.ceil(width / 3)
    price = np.array([1.0, 0.7, 1.6])

    def loss(genes: Genes) -> Floats:
        h, w, op = (genes[:, start::3] for start in range(3))
        capacity = appetite[0] * np.log2(heads)[h] + appetite[1] * np.log2(width)[w]
        layer = weight * np.exp(-capacity + suits[np.arange(layers), w, op])
        misfit = 0.04 * np.abs(np.diff(capacity, axis=1)) ** 1.5
        return np.log1p(layer.sum(axis=1) + misfit.sum(axis=1))

    def cost(genes: Genes) -> Floats:
        h, w, op = (genes[:, start::3] for start in range(3))
        layer = price[op] * (0.4 * heads[h] + tile[w]) + 0.5 * (op == 2) * (heads[h] > 2)
        stages = layer.reshape(len(genes), 5, 4).sum(axis=2)
        return layer.sum(axis=1) + stages.max(axis=1)

    return _two("layered", "layered, 60 genes", space, loss, cost)


def rugged() -> SearchProblem:
    """Three conflicting NK landscapes (Kauffman, 1993; MNK: Aguirre and Tanaka, 2007), 48 genes.

    A gene's part of an objective depends on it and on two others, through a random table, so that
    neither the order of choices nor a gene alone says much. Nothing is known at no cost.
    """
    count, choices, others, objectives = 48, 4, 2, 3
    rng = np.random.default_rng(2007)
    space = SearchSpace({f"g{i}": tuple(range(choices)) for i in range(count)})
    neighbours = np.array(
        [
            rng.choice(np.delete(np.arange(count), i), size=others, replace=False)
            for i in range(count)
        ]
    )
    columns = np.hstack([np.arange(count)[:, None], neighbours])  # (count, others + 1)
    tables = rng.random((objectives, count, choices ** (others + 1)))
    places = choices ** np.arange(others + 1)

    def evaluate(architectures: Sequence[Architecture]) -> Floats:
        index = (space.encode_all(architectures)[:, columns] * places).sum(axis=2)
        return tables[:, np.arange(count), index].mean(axis=2).T

    return SearchProblem(
        name="rugged",
        title="rugged, 48 genes, 3 objectives",
        space=space,
        evaluate=evaluate,
        names=("f1", "f2", "f3"),
        reference_budget=REFERENCE_BUDGET,
    )


def staged() -> SearchProblem:
    """Four stages of up to four layers, 42 genes of which some do not count, 2 objectives.

    A deeper stage wants wider layers, resolution interacts with depth, and an attention layer
    only helps late; the cost is quadratic in resolution and in the width from layer to layer.
    """
    stages, layers = 4, 4
    rng = np.random.default_rng(1907)
    choices: dict[str, tuple[int | str, ...]] = {
        "resolution": (96, 128, 160, 192),
        "activation": ("relu", "gelu", "swish"),
    }
    active: dict[str, dict[str, tuple[int, ...]]] = {}
    for s in range(stages):
        choices[f"depth.{s}"] = (1, 2, 3, 4)
        choices[f"squeeze.{s}"] = (0, 1)
        for i in range(layers):
            for name, values in (("width", (16, 24, 32, 48, 64)), ("kind", (3, 5, 7, 0))):
                choices[f"{name}.{s}.{i}"] = values
                active[f"{name}.{s}.{i}"] = {f"depth.{s}": tuple(range(i + 1, layers + 1))}
    space = SearchSpace(choices, active)
    names = list(space.names)
    depth_at = [names.index(f"depth.{s}") for s in range(stages)]
    squeeze_at = [names.index(f"squeeze.{s}") for s in range(stages)]
    width_at = np.array(
        [[names.index(f"width.{s}.{i}") for i in range(layers)] for s in range(stages)]
    )
    kind_at = width_at + 1
    widths = np.array([16, 24, 32, 48, 64]) / 64
    size = np.array([96, 128, 160, 192]) / 192
    fit = rng.normal(0.0, 0.3, (stages, layers, 4))
    fit[:2, :, 3] -= 0.5  # attention (kind 0) early
    fit[2:, :, 3] += 0.4
    taste = rng.normal(0.0, 0.15, (3, stages))
    gain = rng.uniform(0.6, 1.4, (stages, layers))

    def parts(genes: Genes) -> tuple[Floats, Genes, NDArray[np.bool_]]:
        present = np.arange(layers) <= genes[:, depth_at][:, :, None]  # (n, stages, layers)
        return widths[genes[:, width_at]] * present, genes[:, kind_at], present

    def error(genes: Genes) -> Floats:
        width, kind, present = parts(genes)
        side = size[genes[:, 0]]
        useful = gain * np.sqrt(width) * np.exp(fit[np.arange(4)[:, None], np.arange(4), kind])
        stage = (useful * present).sum(axis=2)
        # A narrow layer holds up all that follow it in the stage.
        neck = np.where(present, width, 1.0).min(axis=2)
        stage *= 0.4 + 0.6 * np.sqrt(neck)
        stage *= 1 + taste[genes[:, 1]] + 0.2 * genes[:, squeeze_at] * (stage < 1.5)
        wanted = 1.2 + 2.0 * side[:, None] * np.array([0.4, 0.8, 1.0, 0.7])
        return 0.1 + np.exp(-0.5 * np.minimum(stage, wanted) - 0.12 * stage).mean(axis=1)

    def energy(genes: Genes) -> Floats:
        width, kind, present = parts(genes)
        area = (size[genes[:, 0]][:, None] / 2.0 ** np.arange(stages)) ** 2
        before = np.concatenate([width[:, :, :1], width[:, :, :-1]], axis=2)
        kernel = np.array([9.0, 25.0, 49.0, 16.0])[kind]
        attention = (kind == 3) * area[:, :, None] * 40.0
        layer = width * (before * 6.0 + kernel * 0.2 + attention) * present
        switch = (np.diff(kind, axis=2) != 0) & present[:, :, 1:]
        total = (layer.sum(axis=2) * (area + 0.02)).sum(axis=1) + 0.05 * switch.sum(axis=(1, 2))
        return np.asarray(total + 0.1 * genes[:, squeeze_at].sum(axis=1))

    return _two("staged", "staged, 42 genes, conditional", space, error, energy)


def _two(name: str, title: str, space: SearchSpace, loss: object, cost: object) -> SearchProblem:
    """Two objectives over genes, the second known at no cost."""
    assert callable(loss)
    assert callable(cost)

    def evaluate(architectures: Sequence[Architecture]) -> Floats:
        return np.asarray(loss(space.encode_all(architectures)))[:, None]

    def cheap(architectures: Sequence[Architecture]) -> Floats:
        return np.asarray(cost(space.encode_all(architectures)))[:, None]

    return SearchProblem(
        name=name,
        title=title,
        space=space,
        evaluate=evaluate,
        cheap=cheap,
        names=("loss", "cost"),
        reference_budget=REFERENCE_BUDGET,
    )
