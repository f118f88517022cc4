"""The stage files of a run directory, as far as a report reads them: plain frozen dataclasses.

Keys that are not named here are ignored, so that a stage may write more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Genes = dict[str, int | float | str | bool]
"""Gene name to chosen value; genes of layers that are not there are left out."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that a file belongs to."""

    name: str
    backend: str = ""
    threads: int | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A whole-model latency in milliseconds; the numbers are None when measuring failed."""

    median: float | None = None
    low: float | None = None
    high: float | None = None
    sessions: int = 0
    hot_sessions: int = 0
    """Those in which the device was hot or held itself back."""
    status: str = "ok"


@dataclass(frozen=True, kw_only=True)
class WorkloadLatency:
    """One workload of one subnet: what was predicted and what the device took, in ms."""

    predicted_ms: float | None
    measured_ms: Measured
    energy_mj: float | None = None
    """Of one call; None where the device does not tell, as `peak_memory_bytes`."""
    peak_memory_bytes: float | None = None
    energy_mj_interval: list[float] | None = None
    peak_memory_bytes_interval: list[float] | None = None
    """Ends of the 95 % intervals over sessions."""
    compute_plan: dict[str, dict[str, int]] = field(default_factory=dict)
    """Operations by device and operator; empty where the runtime tells none."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of one subnet; `test` is None when the exported model could not be run."""

    metric: str
    validation: float | None = None
    test: float | None = None
    test_se: float | None = None
    export_test: float | None = None


@dataclass(frozen=True, kw_only=True)
class UniformCost:
    """What a subnet would cost with one scheme in all its layers."""

    size_bytes: int | None = None
    predicted_ms: dict[str, float | None] = field(default_factory=dict)
    """By workload."""


@dataclass(frozen=True, kw_only=True)
class Sensitivities:
    """What each linear layer of one subnet loses under each scheme."""

    subnet: str
    losses: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By gene and scheme, nats per prediction."""


@dataclass(frozen=True, kw_only=True)
class FrontSubnet:
    """One subnet of the front."""

    name: str
    architecture: Genes
    quality: Quality
    predicted_latency_ms: float | None = None
    measured_latency_ms: Measured = field(default_factory=lambda: Measured(status="missing"))
    workloads: dict[str, WorkloadLatency] = field(default_factory=dict)
    values: list[float | None] = field(default_factory=list)
    """Values of the objectives as the search saw them, in the order of `Front.objectives`."""
    values_on_test: list[float | None] = field(default_factory=list)
    """The same with every quality on the test split; empty in older files."""
    macs: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    kv_cache_bytes: int | None = None
    max_abs_difference: float | None = None
    uniform: dict[str, UniformCost] = field(default_factory=dict)
    """By scheme; empty where there is no choice of schemes."""
    export: str | None = None

    @property
    def latencies(self) -> dict[str, WorkloadLatency]:
        """Workload name to latency; files without `workloads` have the one called "latency"."""
        return self.workloads or {
            "latency": WorkloadLatency(
                predicted_ms=self.predicted_latency_ms, measured_ms=self.measured_latency_ms
            )
        }


@dataclass(frozen=True, kw_only=True)
class Front:
    """`front.json`."""

    device: Device
    objectives: list[str]
    subnets: list[FrontSubnet]
    supernet: str = ""
    """Hash of the supernet; "" in older files."""
    sensitivities: Sensitivities | None = None
    script: str | None = None
    """What runs the exports, from the run directory; None in older files."""
    exported: bool = True
    """False where there is no `front.json` yet."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An evaluated architecture; `values` in the order of the search's objectives."""

    architecture: Genes
    values: list[float | None]
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Part of an objective's variance over random subnets, and the ends of its 90 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What genes explain of one objective."""

    single: Share
    """All genes, each by itself, added up."""
    kinds: dict[str, Share]
    genes: dict[str, Share]
    r2: float | None = None
    """How well evaluations are predicted that were left out; None for what needs no evaluation."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Which genes matter."""

    evaluations: int
    """Those that the shares were learned from."""
    fewest: int
    """With fewer evaluations nothing is told of objectives that need them."""
    kinds: dict[str, list[str]]
    """Genes by their kind."""
    choices: dict[str, list[int | float | str | bool]]
    """By gene, from small to large."""
    objectives: dict[str, Shares]


@dataclass(frozen=True, kw_only=True)
class Search:
    """`search.json`, or `search-unfinished.json`."""

    objectives: list[str]
    bounds: list[str] = field(default_factory=list)
    algorithm: str = ""
    budget: int | None = None
    seed: int | None = None
    known: int = 0
    """Those of `evaluated`, the first ones, that were known before and cost no budget."""
    evaluated: list[Point] = field(default_factory=list)
    front: list[int] = field(default_factory=list)
    selected: list[int] = field(default_factory=list)
    """Those of the front that are to be exported; empty in older files."""
    references: list[Point] = field(default_factory=list)
    finished: bool = True
    """Whether it has used up its budget; what an unfinished one found may still be beaten."""
    importance: Importance | None = None
    """None in older files."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """Latency of one block, in ms; None when it could not be measured."""

    workload: str
    kind: str
    widths: dict[str, int | float | str | bool] = field(default_factory=dict)
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    sessions: int = 0
    status: str = "ok"


@dataclass(frozen=True, kw_only=True)
class WholeSubnet:
    """A whole subnet measured to correct the table's sums."""

    workload: str
    architecture: Genes
    predicted_ms: float | None = None
    measured_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    status: str = "ok"


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """How far off the interpolated rows of one kind are, as shares; None if not measured."""

    workload: str
    kind: str
    method: str = ""
    interpolated: int = 0
    held_out: int = 0
    mape: float | None = None
    worst: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """`table.json`."""

    device: Device
    mode: str
    workloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[TableRow] = field(default_factory=list)
    interpolation: list[Interpolation] = field(default_factory=list)
    corrections: dict[str, dict[str, Any]] = field(default_factory=dict)
    whole: list[WholeSubnet] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SanityRow:
    """Quality of one uniform subnet right after training."""

    name: str
    architecture: Genes = field(default_factory=dict)
    parameters: int | None = None
    macs: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Supernet:
    """`supernet.json`."""

    family: str
    hash: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    """What `space_from_json` reads, without precisions; empty where it is not known."""
    sanity: list[SanityRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """One logged step of training; losses in nats."""

    step: int
    loss_largest: float | None = None
    loss_smallest: float | None = None
    loss_random: float | None = None
    learning_rate: float | None = None
    samples_per_s: float | None = None
    elapsed_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything that a report shows of one device in one run directory."""

    front: Front
    search: Search | None = None
    table: Table | None = None
    supernet: Supernet | None = None
    training: tuple[TrainingStep, ...] = ()
    environment: Mapping[str, Any] | None = None
    splits: Mapping[str, Any] | None = None
    config_text: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def workloads(self) -> tuple[str, ...]:
        """Workload names: those of the table first, then any more that the front has."""
        names = dict.fromkeys(self.table.workloads if self.table else ())
        for subnet in self.front.subnets:
            names.update(dict.fromkeys(subnet.latencies))
        return tuple(names)
