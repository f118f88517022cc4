"""Precision policies in a report: a square for each linear layer, and costs against others."""

from dataclasses import dataclass

from reports import numbers
from reports.shapes import PARTS, schemes_of
from reports.stages import FrontSubnet, Genes, RunData, UniformCost
from reports.tables import Cell, Column
from search_spaces.schemes import FULL, SCHEMES

INT8 = ("w8a8", "w8a8_dynamic", "w8")
"""What is called uniform int8: the first of these that a space has."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """The scheme of one part of one layer."""

    layer: int
    row: int
    """Place of the part among `reports.shapes.PARTS`."""
    bits: int
    """Of a stored weight; 0 for a scheme that is not known here."""
    integer_inputs: bool
    text: str


def squares(genes: Genes) -> tuple[Square, ...]:
    """The policy of a subnet; nothing where it has none."""
    found = []
    for (part, layer), name in sorted(schemes_of(genes).items()):
        scheme = SCHEMES.get(name)
        found.append(
            Square(
                layer=layer,
                row=list(PARTS).index(part),
                bits=scheme.weight_bits if scheme else 0,
                integer_inputs=scheme is not None and scheme.activations != "float",
                text=f"layer {layer}, {PARTS[part]}: {name}",
            )
        )
    return tuple(found)


def policy_table(data: RunData) -> tuple[list[Column], list[list[Cell]]]:
    """Size and latency of the front's subnets against the same in fp32 and in uniform int8.

    Latencies are predicted: nobody measured the others. No rows where there are no policies.
    """
    subnets = [subnet for subnet in data.front.subnets if subnet.uniform]
    names = {name for subnet in subnets for name in subnet.uniform}
    others = [FULL, *[name for name in INT8 if name in names][:1]]
    workloads = [name for name in data.workloads if any(name in s.latencies for s in subnets)]
    columns = [Column(label="Name", numeric=False), Column(label="Size")]
    columns += [Column(label=f"of uniform {other}") for other in others]
    for workload in workloads:
        columns.append(Column(label=f"{workload}: predicted ms"))
        columns += [Column(label=f"of uniform {other}") for other in others]
    return columns, [_row(subnet, others, workloads) for subnet in subnets]


def _row(subnet: FrontSubnet, others: list[str], workloads: list[str]) -> list[Cell]:
    uniform = [subnet.uniform.get(other, UniformCost()) for other in others]
    cells = [
        Cell(text=subnet.name),
        Cell(text=numbers.size(subnet.size_bytes), sort=subnet.size_bytes),
        *(_share(subnet.size_bytes, one.size_bytes) for one in uniform),
    ]
    for workload in workloads:
        latency = subnet.latencies.get(workload)
        own = latency.predicted_ms if latency else None
        cells.append(Cell(text=numbers.significant(own), sort=own))
        cells += [_share(own, one.predicted_ms.get(workload)) for one in uniform]
    return cells


def _share(own: float | None, other: float | None) -> Cell:
    share = own / other if own is not None and other else None
    return Cell(text=numbers.MISSING if share is None else f"{100 * share:.0f} %", sort=share)
