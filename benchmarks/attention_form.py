"""How much faster is a network whose attention is written as one operator?

    python -m benchmarks.attention_form

Times the largest subnet of both examples, in fp32 and in `w8a8`, with attention written the plain
way (heads cut out of the projection) and as `supernet.onnx_attention` writes it, both in the same
sessions, for several batches and lengths. Weights are random. Keep the machine idle meanwhile;
sessions are kept under runs/benchmarks/attention_form/.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.int8_pays import SCHEME, arguments, configuration
from benchmarks.quantization import EXAMPLES
from benchmarks.results import FOLDER, number, percent, table, write_results
from latency.artifact import Artifact, build_artifact
from latency.chains import whole_inputs
from latency.export import schemes_of
from latency.files import write_bytes
from latency.policy import tolerance
from latency.protocol import measure
from latency.statistics import mean_interval
from nas.config import Config
from nas.progress import progress
from nas.run import Run
from nas.stages.device_lab import DeviceLab, random_supernet, told
from nas.stages.supernet import build_space
from search_spaces import Workload
from search_spaces.schemes import FULL
from supernet.parts import Network

SCHEMES = (FULL, SCHEME)


def main() -> int:
    """Measure, and print a table for each example."""
    options = arguments(__doc__)
    found = {}
    for name in options.examples or EXAMPLES:
        found[name] = compare(configuration(name, options, FOLDER / "attention_form"))
        header = ["workload", "scheme", "plain, ms", "one operator, ms", "share", "95 % +-"]
        print(f"\n{name}\n{table(header, [_cells(row) for row in found[name]])}")
    path = write_results("attention_form", found)
    print(f"\n{path}", file=sys.stderr)
    return 0


def compare(config: Config) -> list[dict[str, Any]]:
    """Both forms of the largest subnet, a row per workload and scheme."""
    rows = []
    with Run.open(config) as run:
        lab = DeviceLab(run, build_space(config))
        supernet = random_supernet(lab.space)
        for workload, load in lab.workloads.items():
            pairs = {}
            for scheme in SCHEMES:
                arch = lab.space.with_scheme(lab.space.largest, scheme)
                network = supernet.extract(arch).network()
                pairs[scheme] = [
                    _artifact(lab, network, load, f"{workload}-{scheme}-{form}", form)
                    for form in (False, True)
                ]
            with progress(run.console, f"Measuring {workload}", 2 * len(pairs)) as update:
                found = measure(
                    list(pairs.values()),
                    backend=lab.backend,
                    timing=lab.timing,
                    store=lab.store,
                    progress=told(update),
                    lease=lab.profile.lease,
                )
            for scheme, (old, new) in pairs.items():
                first, second = found[old.sha256], found[new.sha256]
                shares = [
                    second.session_ratios[session] / ratio
                    for session, ratio in first.session_ratios.items()
                    if session in second.session_ratios
                ]
                share, half_width = mean_interval(shares)
                rows.append(
                    {
                        "workload": workload,
                        "scheme": scheme,
                        "plain_ns": first.median_ns,
                        "one_operator_ns": second.median_ns,
                        "share": share,
                        "half_width": half_width,
                    }
                )
    return rows


def _artifact(
    lab: DeviceLab, network: Network, load: Workload, name: str, onnx_attention: bool
) -> Artifact:
    """A network's file in one of the two forms."""
    feeds = whole_inputs(network, load)
    model = lab.library.assemble(network, {"name": name}, onnx_attention=onnx_attention)
    path = lab.folder / "forms" / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, model.SerializeToString())
    values = network.run(feeds)
    return build_artifact(
        path,
        inputs={name: value.numpy() for name, value in feeds.items()},
        outputs={port.name: values[port.name].detach().numpy() for port in network.outputs},
        tolerance=max(lab.backend.tolerance, tolerance(schemes_of(network))),
        provenance={"name": name},
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["workload"],
        row["scheme"],
        number(row["plain_ns"] / 1e6, 4),
        number(row["one_operator_ns"] / 1e6, 4),
        number(row["share"], 3),
        percent(row["half_width"] / row["share"], 1),
    ]


if __name__ == "__main__":
    sys.exit(main())
