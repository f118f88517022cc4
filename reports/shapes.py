"""What a subnet looks like, read from its genes alone: `heads.i` and `ffn.i` of the layers kept."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from reports.numbers import MISSING
from reports.stages import Genes

_LAYER_GENE = re.compile(r"(heads|ffn)\.(\d{1,3})")
PARTS = {
    "qkv": "query, key, value",
    "attention_out": "attention output",
    "ffn_in": "FFN in",
    "ffn_out": "FFN out",
}
"""Parts of a layer that have a scheme each, and what people call them."""
SCHEME_GENE = re.compile(rf"precision\.({'|'.join(PARTS)})\.(\d{{1,3}})")
"""Genes of a precision policy."""
ENDS = ("stem", "head")
"""What may have a scheme beside the layers, as `precision.stem`."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the supernet as a subnet has it."""

    index: int
    heads: int
    """Attention heads; 0 in a dropped layer."""
    ffn: int
    """FFN width; 0 in a dropped layer."""

    @property
    def kept(self) -> bool:
        """Whether the subnet has this layer."""
        return self.heads > 0 or self.ffn > 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest of everything, which bars are drawn against."""

    layers: int
    heads: int
    ffn: int


def limits(architectures: Iterable[Genes]) -> Limits:
    """The largest layer count, head count and FFN width in any of `architectures`."""
    layers = heads = ffn = 0
    for genes in architectures:
        for kind, index, value in _layer_genes(genes):
            layers = max(layers, index + 1)
            if kind == "heads":
                heads = max(heads, value)
            else:
                ffn = max(ffn, value)
    return Limits(layers=layers, heads=heads, ffn=ffn)


def layers_of(genes: Genes, count: int) -> tuple[Layer, ...]:
    """All `count` layers, the dropped ones with no heads and no FFN."""
    found = {(kind, index): value for kind, index, value in _layer_genes(genes)}
    return tuple(
        Layer(index=i, heads=found.get(("heads", i), 0), ffn=found.get(("ffn", i), 0))
        for i in range(count)
    )


def describe(genes: Genes, layers: int) -> tuple[str, ...]:
    """Lines of text that say what a subnet looks like, a dash for a dropped layer."""
    shape = layers_of(genes, layers)
    kept = sum(layer.kept for layer in shape)
    lines = []
    if kept:
        lines.append(f"{kept} of {layers} layers")
        if "embed" in genes:
            lines[0] = f"embedding {genes['embed']}, " + lines[0]
        lines.append("heads " + " ".join(str(x.heads) if x.kept else MISSING for x in shape))
        lines.append("FFN " + " ".join(str(x.ffn) if x.kept else MISSING for x in shape))
        lines += _policies(genes, layers)
    known = {f"{kind}.{i}" for kind, i, _ in _layer_genes(genes)} | {"embed", "depth"}
    known |= {name for name in genes if SCHEME_GENE.fullmatch(name)}
    known |= {f"precision.{end}" for end in ENDS}
    known = known if kept else set()
    rest = [f"{name} = {value}" for name, value in sorted(genes.items()) if name not in known]
    return (*lines, *rest)


def schemes_of(genes: Genes) -> dict[tuple[str, int], str]:
    """Scheme by part and layer; empty where there is no policy."""
    return {
        (match[1], int(match[2])): str(value)
        for name, value in genes.items()
        if (match := SCHEME_GENE.fullmatch(name))
    }


def _policies(genes: Genes, layers: int) -> list[str]:
    """A line for each part of the layers that is not fp32 everywhere."""
    found: dict[str, dict[int, str]] = {}
    for (part, layer), scheme in schemes_of(genes).items():
        found.setdefault(part, {})[layer] = scheme
    return [
        f"{PARTS[part]} " + " ".join(chosen.get(i, MISSING) for i in range(layers))
        for part, chosen in sorted(found.items(), key=lambda item: list(PARTS).index(item[0]))
        if set(chosen.values()) != {"fp32"}
    ] + ends_of(genes)


def ends_of(genes: Genes) -> list[str]:
    """Stem and head with their schemes, where these are genes."""
    return [f"{end} {genes[key]}" for end in ENDS if (key := f"precision.{end}") in genes]


def _layer_genes(genes: Genes) -> list[tuple[str, int, int]]:
    found = []
    for name, value in genes.items():
        match = _LAYER_GENE.fullmatch(name)
        if match and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found.append((match[1], int(match[2]), value))
    return found
