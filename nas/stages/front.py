"""Export the subnets of a front, check them in the runtime, and measure them whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latency.compute_plan import compute_plan_of
from latency.device_profile import DeviceProfile
from latency.measurement import FAILED, Measurement
from latency.onnxruntime_session import WITHOUT_VNNI, session_config
from latency.resources import amounts_of, resource_fields
from nas.atomic import read_json, write_json
from nas.progress import progress
from nas.run import Run
from nas.search.choice import best_within, parse_bounds
from nas.search.constraints import total_violation
from nas.stages.companions import write_companions
from nas.stages.exporter import Exported, Exporter
from nas.stages.policies import measure_sensitivities
from nas.stages.search import check_search
from nas.stages.supernet import TrainedSupernet, open_supernet
from search_spaces import Architecture, InfeasibleError, UserError
from search_spaces.blocks import PRECISION

SUFFIXES = (".onnx", ".pt2", ".engine", ".mlpackage", ".json")
"""Of the files in a folder of exports."""


def export_front(run: Run, supernet: TrainedSupernet | None = None) -> dict[str, Any]:
    """Export, check and measure every selected subnet of the front.

    Leaves `front.json` and `exports/`. Measurements that the store holds are not made again.

    Raises:
        UserError: There is no `search.json`, or it is of another supernet.
    """
    supernet = supernet or open_supernet(run)
    found = _read_search(run, supernet)
    exporter = Exporter(run, supernet, run.directory.exports)
    points = sorted(
        (found["evaluated"][index] for index in found["selected"]),
        key=lambda point: _order(exporter, point),
    )
    exported = []
    with progress(run.console, "Exporting", len(points)) as update:
        for index, point in enumerate(points):
            arch = supernet.space.architecture(point["architecture"])
            exported.append(exporter.export(f"s{index:02d}", arch))
            update(index + 1, f"{index + 1}/{len(points)}")
    by_workload = {
        workload: [subnet.artifacts[workload] for subnet in exported]
        for workload in exporter.lab.workloads
    }
    if exporter.lab.stand_in is not None:
        run.console.print(exporter.lab.stand_in, highlight=False, soft_wrap=True, markup=False)
    measured = exporter.lab.measure_whole(by_workload, "Measuring the front")
    subnets = []
    companions = write_companions(supernet.task, run.directory.exports)
    for index, (subnet, point) in enumerate(zip(exported, points, strict=True)):
        latencies = {name: results[index] for name, results in measured.items()}
        shipped = next(iter(subnet.artifacts.values())).path
        export = _from(run.directory.path, shipped)
        subnets.append(describe(exporter, subnet, point["values"], latencies, export))
        write_json(
            run.directory.exports / f"{subnet.name}.json",
            {**how_to_feed(exporter, subnet, subnets[-1]), **companions},
        )
    failed = sum(result.status in FAILED for results in measured.values() for result in results)
    write_json(
        run.directory.front,
        {
            "schema": 1,
            "name": run.config.name,
            "device": exporter.lab.describe(),
            "supernet": supernet.hash,
            "mode": exporter.lab.timing.mode,
            "objectives": list(exporter.objectives.names),
            "script": _from(run.directory.path, run.directory.exports / companions["script"]),
            "subnets": subnets,
            **_sensitivities(supernet),
        },
    )
    _remove_stale(run.directory.exports, {subnet.name for subnet in exported})
    return {"subnets": len(subnets), "failed_measurements": failed}


def _from(directory: Path, path: Path) -> str:
    return path.relative_to(directory).as_posix()


def _order(exporter: Exporter, point: Mapping[str, Any]) -> tuple[float, ...]:
    """Fastest first, or smallest where latency is no objective."""
    names = list(exporter.objectives.names)
    quality = set(exporter.objectives.evaluated)
    costs = [
        value for name, value in zip(names, point["values"], strict=True) if name not in quality
    ]
    return (*costs, *point["values"])


def _read_search(run: Run, supernet: TrainedSupernet) -> dict[str, Any]:
    if not run.directory.search.exists():
        raise UserError(f"{run.directory.search} does not exist; run `nas search` first")
    found = read_json(run.directory.search)
    check_search(run, found, supernet.hash)
    for key in ("evaluated", "front", "selected"):
        if not isinstance(found.get(key), list):
            raise UserError(f"{run.directory.search} lacks {key}; run `nas search` again")
    count = len(found["evaluated"])
    for index in (*found["front"], *found["selected"]):
        if not isinstance(index, int) or not 0 <= index < count:
            raise UserError(
                f"{run.directory.search} is damaged: {index!r} is none of its {count} "
                "architectures; run `nas search` again"
            )
    return found


def describe(
    exporter: Exporter,
    subnet: Exported,
    values: Sequence[float],
    latencies: Mapping[str, Measurement],
    export: str,
) -> dict[str, Any]:
    """A subnet as it stands in `front.json`."""
    supernet, objectives, lab = exporter.supernet, exporter.objectives, exporter.lab
    arch = subnet.architecture
    # People read accuracy, whichever of its relatives the search minimised.
    shown = "accuracy" if supernet.task.quality == "error" else supernet.task.quality
    validation = supernet.metrics([arch], "validation")[0]
    test = supernet.metrics([arch], "test")[0]
    cost = supernet.space.cost(arch, objectives.workload)
    workloads = {
        name: {
            "predicted_ms": float(objectives.predictors[name].predict([arch])[0][0]),
            "measured_ms": measured_json(result),
            **resource_fields(amounts_of(result)),
            **compute_plan_of(subnet.artifacts[name], lab.fingerprint, lab.store),
            "file": subnet.artifacts[name].path.name,
        }
        for name, result in latencies.items()
    }
    first = next(iter(workloads.values()))
    return {
        "name": subnet.name,
        "architecture": dict(arch),
        "values": list(values),
        "values_on_test": [
            test[name] if name in objectives.evaluated else value
            for name, value in zip(objectives.names, values, strict=True)
        ],
        "predicted_latency_ms": first["predicted_ms"],
        "measured_latency_ms": first["measured_ms"],
        "workloads": workloads,
        "quality": {
            "metric": shown,
            "validation": validation[shown],
            "test": test[shown],
            "test_se": test[f"{shown}_se"],
            "export_test": subnet.test[shown],
        },
        "max_abs_difference": subnet.max_abs_difference,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "size_bytes": cost.size_bytes,
        "kv_cache_bytes": cost.kv_cache_bytes,
        "precision": _precision(exporter, arch),
        **({} if lab.stand_in is None else {"note": lab.stand_in}),
        **_other_schemes(exporter, arch),
        "export": export,
    }


def _precision(exporter: Exporter, arch: Architecture) -> dict[str, str]:
    """Scheme of each linear layer by the name of its gene; `all` where there is no choice."""
    default = str(exporter.lab.compiler.build_facts()["precision"])
    genes = {
        name.removeprefix(PRECISION): str(value)
        for name, value in arch.items()
        if name.startswith(PRECISION)
    }
    return {**genes, "other": default} if genes else {"all": default}


def _other_schemes(exporter: Exporter, arch: Architecture) -> dict[str, Any]:
    """What the subnet would cost with one scheme everywhere; nothing where there is no choice."""
    space = exporter.lab.space
    found = {}
    for name in reversed(space.precision):
        other = space.with_scheme(arch, name)
        found[name] = {
            "size_bytes": space.cost(other, exporter.objectives.workload).size_bytes,
            "predicted_ms": {
                workload: float(predictor.predict([other])[0][0])
                for workload, predictor in exporter.objectives.predictors.items()
            },
        }
    return {"uniform": found} if found else {}


def _sensitivities(supernet: TrainedSupernet) -> dict[str, Any]:
    """Of the largest subnet, to explain the policies; nothing where there is no choice."""
    if not supernet.space.precision:
        return {}
    losses = measure_sensitivities(supernet, supernet.space.largest)
    return {"sensitivities": {"subnet": "largest", "losses": losses}}


def measured_json(measurement: Measurement) -> dict[str, Any]:
    """A measured latency as it stands in `front.json`, in ms."""

    def ms(value_ns: float | None) -> float | None:
        return None if value_ns is None else value_ns / 1e6

    return {
        "median": ms(measurement.median_ns),
        "low": ms(measurement.low_ns),
        "high": ms(measurement.high_ns),
        "sessions": measurement.sessions,
        "hot_sessions": measurement.hot_sessions,
        "status": measurement.status,
        "quick": measurement.quick,
    }


def how_to_feed(exporter: Exporter, subnet: Exported, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside an exported model: its inputs, outputs, and what it was measured at."""
    network = exporter.supernet.model.extract(subnet.architecture).network()
    artifact = next(iter(subnet.artifacts.values()))
    lab = exporter.lab
    return {
        "schema": 1,
        "model": artifact.path.name,
        "sha256": artifact.sha256,
        "runtime": _runtime(lab.profile),
        **({} if lab.stand_in is None else {"note": lab.stand_in}),
        "inputs": [
            {
                "name": port.name,
                "type": "int64" if port.tokens else "float32",
                "shape": list(port.shape),
            }
            for port in network.inputs
        ],
        "outputs": [
            {"name": port.name, "type": "float32", "shape": list(port.shape)}
            for port in network.outputs
        ],
        "task": exporter.supernet.task.record,
        "subnet": {key: value for key, value in entry.items() if key != "export"},
    }


def _runtime(profile: DeviceProfile) -> dict[str, Any]:
    """What the deployed model has to be run with, so that it is as fast as it was measured."""
    runtime: dict[str, Any] = {"name": profile.backend}
    if profile.backend == "onnxruntime":
        runtime["provider"] = profile.provider
        runtime["session_config"] = session_config(profile.spins)
        runtime["session_config_without_vnni"] = WITHOUT_VNNI
    return {**runtime, "intra_op_num_threads": profile.threads, **profile.options}


def export_best(run: Run, bound: str, output: Path) -> dict[str, Any]:
    """Write the best subnet within bounds as one ONNX file, with a JSON beside it.

    All of the front that was searched is looked at: by the measured latency where a subnet was
    measured, else by the predicted one.

    Args:
        run: The run.
        bound: Such as `latency_ms <= 2`, or several that commas part.
        output: The file to write.

    Raises:
        InfeasibleError: No subnet of the front is within the bounds; names the nearest.
        UserError: Another mistake.
    """
    bounds = parse_bounds(bound, run.config.objectives)
    supernet = open_supernet(run)
    found = _read_search(run, supernet)
    exporter = Exporter(run, supernet, output.absolute().parent)
    points = [found["evaluated"][index] for index in found["front"]]
    architectures = [supernet.space.architecture(point["architecture"]) for point in points]
    names = list(dict.fromkeys(str(one.objective) for one in bounds))
    measured = [_measured(run, name) for name in names]
    bounded = np.array(
        [
            [
                known.get(arch) or exporter.value(arch, name)
                for name, known in zip(names, measured, strict=True)
            ]
            for arch in architectures
        ]
    )
    quality = np.array(
        [exporter.value(arch, exporter.objectives.evaluated[0]) for arch in architectures]
    )
    best = best_within(bounded, names, quality, bounds)
    if best is None:
        nearest = int(np.argmin(total_violation(bounded, bounds, names)))
        has = ", ".join(f"{name} {bounded[nearest, at]:.4g}" for at, name in enumerate(names))
        raise InfeasibleError(
            f"no subnet of the front has {' and '.join(map(str, bounds))}; the nearest has {has}: "
            f"{architectures[nearest].to_json()}; loosen the bound, or search again with it in "
            "search.bounds"
        )
    subnet = exporter.export(output.stem, architectures[best])
    artifacts = {name: [artifact] for name, artifact in subnet.artifacts.items()}
    latencies = {
        name: results[0]
        for name, results in exporter.lab.measure_whole(artifacts, "Measuring").items()
    }
    entry = describe(exporter, subnet, points[best]["values"], latencies, output.name)
    companions = write_companions(supernet.task, output.absolute().parent, output.stem)
    how = {**how_to_feed(exporter, subnet, entry), **companions}
    write_json(output.with_suffix(".json"), how)
    failed = sum(result.status in FAILED for result in latencies.values())
    return {
        "file": str(output),
        "subnet": entry,
        **_in_short(entry),
        "script": str(output.with_name(companions["script"])),
        "failed_measurements": failed,
    }


def _in_short(entry: Mapping[str, Any]) -> dict[str, float]:
    """What a subnet is worth and costs, for the end of a command."""
    quality = entry["quality"]
    found = {f"test_{quality['metric']}": quality["export_test"]}
    for name, workload in entry["workloads"].items():
        median = workload["measured_ms"]["median"]
        found |= {f"{name}_ms": workload["predicted_ms"] if median is None else median}
    return found


def _measured(run: Run, objective: str) -> dict[Architecture, float]:
    """The measured latencies of `front.json` by architecture, if it is one and there are any."""
    workload = objective.removesuffix("_ms")
    if not run.directory.front.exists() or workload == objective:
        return {}
    found = {}
    try:
        for subnet in read_json(run.directory.front)["subnets"]:
            median = subnet["workloads"].get(workload, {}).get("measured_ms", {}).get("median")
            if median is not None:
                found[Architecture(subnet["architecture"])] = float(median)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run.directory.front} is damaged ({error!r}); delete it and run `nas export` again"
        ) from None
    return found


def _remove_stale(folder: Path, names: set[str]) -> None:
    """Delete the files of an earlier front that this one does not have."""
    for path in folder.glob("s[0-9]*.*"):
        if path.suffix in SUFFIXES and path.name.partition(".")[0] not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
