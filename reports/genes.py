"""Which genes matter: what each explains of the objectives, beside what the front takes of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports.axes import axes
from reports.stages import Genes, Importance, RunData, Share, Shares

LEAST_R2 = 0.5
"""Of a predictor that explains less of what was left out of it, nothing is told."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """How much of one objective's variation something explains, in [0, 1], and as text."""

    share: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a subnet takes of a gene, or of all genes of a kind; "" where it has none."""

    text: str
    level: float = 0.0
    """From 0, the smallest choice, to 1, the largest."""


@dataclass(frozen=True, kw_only=True)
class GeneRow:
    """One gene, or all genes of a kind."""

    name: str
    explained: tuple[Explained, ...]
    taken: tuple[Taken, ...]


@dataclass(frozen=True, kw_only=True)
class GeneTable:
    """Kinds of genes, and the genes of those kinds that have several."""

    objectives: tuple[str, ...]
    subnets: tuple[str, ...]
    """Of the front, in its order."""
    kinds: tuple[GeneRow, ...]
    """The one that explains most of the first objective comes first."""
    together: tuple[Explained, ...]
    """All genes, each by itself, added up."""
    genes: tuple[GeneRow, ...]
    notes: tuple[str, ...]
    """How far the figures can be trusted, and which cannot be told."""


def gene_table(data: RunData) -> GeneTable | None:
    """The table; None where there is nothing for it in `search.json`, as in older ones."""
    found = data.search.importance if data.search else None
    if data.search is None or found is None:
        return None
    labels = {axis.id: axis.label.partition(" (")[0] for axis in axes(data)}
    notes: list[str] = []
    told: dict[str, Shares] = {}
    for name in dict.fromkeys([*data.search.objectives, *found.objectives]):
        label, shares = labels.get(name, name.replace("_", " ")), found.objectives.get(name)
        if shares is None or not _is_known(shares):
            notes.append(f"Which genes matter for {label} cannot be told: {_why(found, shares)}.")
            continue
        told[label] = shares
        if shares.r2 is not None:
            notes.append(
                f"The shares of {label} are those of a model of {found.evaluations} evaluations, "
                f"which explains {_percent(shares.r2)} of the variation of evaluations left out "
                "of it; brackets hold 90 % of its doubt, which knows nothing of regions that the "
                "search left alone."
            )
    first = next(iter(told.values()), None)
    order = (
        sorted(found.kinds, key=lambda kind: -first.kinds[kind].share)
        if first
        else list(found.kinds)
    )
    subnets = [subnet.architecture for subnet in data.front.subnets]
    several = [kind for kind in order if len(found.kinds[kind]) > 1]
    return GeneTable(
        objectives=tuple(told),
        subnets=tuple(subnet.name for subnet in data.front.subnets),
        kinds=tuple(
            GeneRow(
                name=kind,
                explained=tuple(_explained(shares.kinds[kind]) for shares in told.values()),
                taken=tuple(_taken(found, found.kinds[kind], genes) for genes in subnets),
            )
            for kind in order
        ),
        together=tuple(_explained(shares.single) for shares in told.values()),
        genes=tuple(
            GeneRow(
                name=gene,
                explained=tuple(_explained(shares.genes[gene]) for shares in told.values()),
                taken=tuple(_taken(found, [gene], genes) for genes in subnets),
            )
            for kind in several
            for gene in found.kinds[kind]
        ),
        notes=tuple(notes),
    )


def _is_known(shares: Shares) -> bool:
    return shares.r2 is None or shares.r2 >= LEAST_R2


def _why(found: Importance, shares: Shares | None) -> str:
    if shares is not None and shares.r2 is not None:
        return (
            f"a model of {found.evaluations} evaluations explains "
            f"{_percent(max(shares.r2, 0.0))} of the variation of those left out of it; a larger "
            "search.budget may"
        )
    if found.evaluations < found.fewest:
        return f"{found.evaluations} evaluations are too few, {found.fewest} are needed"
    return "all evaluations are equal"


def _explained(share: Share) -> Explained:
    text = _percent(share.share)
    if share.high > share.low:
        text += f" [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return Explained(share=share.share, text=text)


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _taken(found: Importance, names: Sequence[str], genes: Genes) -> Taken:
    """The choice of the one gene; of several the mean, or what most have where that is no number.

    The mean level is that of all that are there.
    """
    there = [name for name in names if genes.get(name) in found.choices[name]]
    if not there:
        return Taken(text="")
    values = [genes[name] for name in there]
    levels = [
        found.choices[name].index(genes[name]) / max(1, len(found.choices[name]) - 1)
        for name in there
    ]
    if len(values) == 1 or any(isinstance(value, str | bool) for value in values):
        text = str(Counter(values).most_common(1)[0][0])
    else:
        mean = sum(map(float, values)) / len(values)
        text = f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}".removesuffix(".0")
    return Taken(text=text, level=sum(levels) / len(levels))
