"""Which score tells best what a layer loses in few bits? Rank correlations with the true loss.

    python -m benchmarks.sensitivity_scores

For the largest and a few random subnets of each example's supernet, every linear layer alone is
given each scheme, and the loss on the validation split is compared with that in fp32. Scores come
from one batch of the training split:

- `sensitivity`: output error weighted by the gradient, as proposals have it
  (`supernet.sensitivity`).
- `relevance`: how much of the outputs of the true classes comes through the layer, the same for all
  schemes: |activation x gradient|, which is what layer-wise relevance propagation gives where a
  network is piecewise linear. LRP-QViT (arXiv:2401.11243) chooses bits by it.
- `relevance x error`: that times the relative error of the layer's output.

Figures are Spearman's rank correlation over the layers of a subnet, the mean over subnets.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.policy_search import configuration
from benchmarks.quantization import EXAMPLES
from benchmarks.results import number, table, write_results
from nas.run import Run
from nas.stages.supernet import TrainedSupernet, evaluate, open_supernet, train
from search_spaces import Architecture
from search_spaces.schemes import FULL, SCHEMES
from supernet.quantization import QuantizedLinear
from supernet.sensitivity import sensitivities

SCORES = ("sensitivity", "relevance", "relevance x error")
SAMPLE_SEED = 20261121


def main() -> int:
    """Print a table for each example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--example", action="append", choices=tuple(EXAMPLES), dest="examples")
    parser.add_argument("--subnets", type=int, default=3, help="random ones beside the largest (3)")
    parser.add_argument("--mode", choices=("quick",), default="quick", help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does it run?")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of every configuration")
    options = parser.parse_args()
    found = {}
    for name in options.examples or EXAMPLES:
        options.example = name
        with Run.open(configuration(options)) as run:
            train(run)
            found[name] = correlations(open_supernet(run), options.subnets)
        print(f"\n{name}\n{correlations_table(found[name])}")
    path = write_results("sensitivity_scores", found)
    print(f"\n{path}", file=sys.stderr)
    return 0


def correlations(supernet: TrainedSupernet, count: int) -> list[dict[str, Any]]:
    """A row per subnet and scheme: the rank correlation of each score with the loss."""
    from scipy.stats import spearmanr

    space, rng = supernet.space, np.random.default_rng(SAMPLE_SEED)
    subnets = [space.largest, *(space.sample(rng) for _ in range(count))]
    rows = []
    for arch in (space.with_scheme(one, FULL) for one in subnets):
        with torch.inference_mode(False):
            batch = next(supernet.task.split("train"))
            scores = scores_of(supernet, arch, *batch)
        base = _loss(supernet, arch)
        for scheme in space.precision:
            if scheme == FULL:
                continue
            genes = list(scores)
            losses = [
                _loss(supernet, space.architecture({**arch, gene: scheme})) - base for gene in genes
            ]
            row: dict[str, Any] = {"architecture": dict(arch), "scheme": scheme}
            for score in SCORES:
                values = [scores[gene][scheme][score] for gene in genes]
                row[score] = float(spearmanr(values, losses).statistic)
            rows.append(row | {"losses": dict(zip(genes, losses, strict=True))})
    return rows


def _loss(supernet: TrainedSupernet, arch: Architecture) -> float:
    return evaluate(supernet.model, supernet.task, arch, "validation")["cross_entropy"]


def scores_of(
    supernet: TrainedSupernet, arch: Architecture, inputs: Tensor, targets: Tensor
) -> dict[str, dict[str, dict[str, float]]]:
    """By gene, scheme and score."""
    model, space = supernet.model, supernet.space
    known = sensitivities(model, arch, inputs, targets)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen[name] = given[0].detach(), output

    with torch.enable_grad():
        plain = model.extract(arch)
        handles = [
            child.register_forward_hook(partial(note, name))
            for name, child in plain.named_modules()
            if isinstance(child, nn.Linear)
        ]
        results = plain(inputs)
        logits = results if isinstance(results, Tensor) else results[0]
        logits.gather(-1, targets[..., None]).sum().backward()
        for handle in handles:
            handle.remove()
    ranges, moments = model.ranges(arch), model.moments(arch)

    @torch.no_grad()
    def error(name: str, scheme: str) -> float:
        """Of a layer's output, as a share of it."""
        linear = plain.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        coarse = QuantizedLinear(linear, SCHEMES[scheme], ranges.get(name), moments.get(name))
        x, output = seen[name]
        return float((coarse(x) - output).norm() / output.norm())

    found: dict[str, dict[str, dict[str, float]]] = {}
    for index, genes in enumerate(space.policy_genes(arch)[1:]):
        path = f"{('attention', 'ffn')[index % 2]}.{index // 2}"
        linears: Mapping[str, Sequence[str]] = plain.get_submodule(path).LINEARS
        for part, gene in genes.items():
            names = [f"{path}.{one}" for one in linears[part]]
            relevance = sum(_relevance(seen[name][1]) for name in names)
            found[gene] = {
                scheme: {
                    "sensitivity": known[gene][scheme],
                    "relevance": relevance,
                    "relevance x error": sum(
                        _relevance(seen[name][1]) * error(name, scheme) for name in names
                    ),
                }
                for scheme in space.precision
                if scheme != FULL
            }
    return found


def _relevance(output: Tensor) -> float:
    assert output.grad is not None
    return float((output.detach() * output.grad).abs().sum())


def correlations_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per scheme: the mean over subnets, and the least."""
    lines = []
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        some = [row for row in rows if row["scheme"] == scheme]
        lines.append(
            [
                scheme,
                *(
                    f"{number(statistics.fmean(row[score] for row in some), 2)} "
                    f"({number(min(row[score] for row in some), 2)})"
                    for score in SCORES
                ),
            ]
        )
    return table(["scheme, mean (least)", *SCORES], lines)


if __name__ == "__main__":
    sys.exit(main())
