"""Run directories as a finished run leaves them, with plausible numbers and no training."""

import json
import math
from pathlib import Path

import numpy as np

from nas.search.pareto import non_dominated
from search_spaces import Workload
from search_spaces.decoder import DecoderSpace
from search_spaces.vit import VisionTransformerSpace

HOSTILE = "</script><script>alert(1)</script><b>\"&'"


def build_vit_run(directory: Path, *, name="digits", seed=0, evaluated=300, size=14) -> Path:
    """A classification run with one workload and one subnet whose measurement was unstable."""
    space = VisionTransformerSpace(
        image_size=8,
        patch_size=2,
        channels=1,
        num_classes=10,
        head_dim=16,
        embed=(32, 48, 64, 96),
        depth=(2, 3, 4, 5, 6),
        heads=(1, 2, 4, 6),
        ffn=(32, 64, 128, 256, 384),
    )
    return _build(
        directory,
        space,
        {"latency": Workload()},
        config=f"name: {json.dumps(name)}\nseed: 0\n"
        "task: {kind: image-classification, data: digits}\n"
        "space: {embed: [32, 48, 64, 96], depth: [2, 3, 4, 5, 6]}\nlatency: {mode: quick}\n",
        splits={"kind": "image-classification", "train": 1078, "validation": 359, "test": 360,
                "classes": [*"012345678", name], "sha256": "5f0c" * 16},
        quality=lambda size, rng: 0.016 + 0.05 * (1 - size) ** 2.2 + abs(rng.normal(0, 0.008)),
        metric=("error", "accuracy"),
        mode="quick",
        seed=seed,
        evaluated=evaluated,
        size=size,
    )  # fmt: skip


def build_lm_run(directory: Path, *, name="stdlib", seed=0, evaluated=400, size=16) -> Path:
    """A language-model run with a prefill and a decoding workload."""
    space = DecoderSpace(
        vocabulary=256,
        context=128,
        head_dim=32,
        group=2,
        embed=(128, 192, 256),
        depth=(6, 8, 10, 12),
        heads=(2, 4, 6, 8),
        ffn=(128, 256, 512, 768),
    )
    return _build(
        directory,
        space,
        {"prefill": Workload(sequence=128), "decode": Workload(sequence=1, past=127)},
        config=f"name: {json.dumps(name)}\nseed: 0\n"
        "task: {kind: language-modelling, data: stdlib}\n",
        splits={"kind": "language-modelling", "train_bytes": 9_000_000, "test_bytes": 500_000},
        quality=lambda size, rng: 1.9 + 0.6 * (1 - size) ** 2 + abs(rng.normal(0, 0.03)),
        metric=("bits_per_byte", "bits_per_byte"),
        mode="standard",
        seed=seed,
        evaluated=evaluated,
        size=size,
    )


def break_measurement(directory: Path, index=1, status="rejected") -> None:
    """Null out the measurement of one subnet, as the pipeline does when it fails."""
    front = read(directory, "front")
    subnet = front["subnets"][index]
    nothing = {"median": None, "low": None, "high": None, "sessions": 0, "status": status}
    subnet["measured_latency_ms"] = nothing
    for latency in subnet["workloads"].values():
        latency["measured_ms"] = nothing
    subnet["quality"] |= {"test": None, "test_se": None, "export_test": None}
    subnet["export"] = None
    write(directory, "front", front)


def tell_more(directory: Path) -> None:
    """Add what only some devices and predictors tell."""
    front = read(directory, "front")
    for index, subnet in enumerate(front["subnets"]):
        for latency in subnet["workloads"].values():
            latency |= {"energy_mj": None if index else 12.34, "peak_memory_bytes": 1536 + index,
                        "energy_mj_interval": None if index else [12.2, 12.48],
                        "peak_memory_bytes_interval": None,
                        "compute_plan": {"NeuralEngine": {"conv": 30, "add": 8 + index},
                                         "CPU": {"softmax": 1, "gather": 2}}}  # fmt: skip
    last = front["subnets"][-1]["workloads"]
    for latency in last.values():
        del latency["compute_plan"]["CPU"]
    write(directory, "front", front)
    table = read(directory, "table")
    for name in table["workloads"]:
        table["corrections"][name] = {
            "kind": "factors", "terms": ["fixed", "attention", "ffn"], "std": 0.012, "subnets": 8,
            "coefficients": [1.41, 0.98, 0.99],
            "cross_validation_mape": {"table": 0.0123, "ridge": 0.034},
        }  # fmt: skip
    table["interpolation"] = [
        {"workload": name, "kind": kind, "method": "pchip", "interpolated": count, "held_out": 4,
         "mape": mape, "worst": mape and 3 * mape, "std": 0.02}
        for name in table["workloads"]
        for kind, count, mape in (("attention", 7, 0.013), ("ffn", 5, None), ("fixed", 0, None))
    ]  # fmt: skip
    table["rows"][0]["status"] = "interpolated"
    write(directory, "table", table)


def add_policies(directory: Path, schemes=("fp32", "w8", "w8a8", "w4")) -> None:
    """Give the subnets of the front precision policies, as a run with `space.precision` does."""
    rng = np.random.default_rng(0)
    front = read(directory, "front")
    parts = ("qkv", "attention_out", "ffn_in", "ffn_out")
    layers = set()
    for subnet in front["subnets"]:
        genes = subnet["architecture"]
        kept = [int(name[4:]) for name in genes if name.startswith("ffn.")]
        layers |= set(kept)
        genes |= {f"precision.{p}.{i}": str(rng.choice(schemes)) for p in parts for i in kept}
        genes |= {"precision.stem": "w8", "precision.head": "fp32"}
        size = subnet["size_bytes"]
        subnet["size_bytes"] = size // 3
        subnet["uniform"] = {
            name: {
                "size_bytes": size if name == "fp32" else size // 4,
                "predicted_ms": {
                    workload: latency["predicted_ms"] * (0.8 if name == "w8a8" else 1.25)
                    for workload, latency in subnet["workloads"].items()
                },
            }
            for name in schemes
        }
    front["sensitivities"] = {
        "subnet": "largest",
        "losses": {
            f"precision.{part}.{layer}": {
                name: 0.0 if name == "fp32" else 10 ** rng.uniform(-6, -2) for name in schemes
            }
            for layer in sorted(layers)
            for part in parts
        }
        | {"precision.head": {"fp32": 0.0, "w8": 1e-4}},
    }
    write(directory, "front", front)


def add_importance(directory: Path, r2=0.9, evaluations=60) -> None:
    """What each gene explains, as a search leaves it; it needs no more than the choices."""
    search = read(directory, "search")
    choices: dict[str, set] = {}
    for point in search["evaluated"]:
        for name, value in point["architecture"].items():
            choices.setdefault(name, set()).add(value)
    kinds: dict[str, list] = {}
    for name in choices:
        kinds.setdefault(name.partition(".")[0], []).append(name)

    def share(value, doubt):
        return {"share": value, "low": value * (1 - doubt), "high": value * (1 + doubt)}

    def shares(doubt, r2):
        return {
            "r2": r2,
            "single": share(0.8, doubt),
            "kinds": {kind: share(0.1 * (place + 1), doubt) for place, kind in enumerate(kinds)},
            "genes": {name: share(0.001, doubt) for name in choices},
        }

    quality, *costs = search["objectives"]
    search["importance"] = {
        "evaluations": evaluations,
        "fewest": 20,
        "kinds": kinds,
        "choices": {name: sorted(values) for name, values in choices.items()},
        "objectives": {quality: shares(0.2, r2)} | {name: shares(0.0, None) for name in costs},
    }
    write(directory, "search", search)


def poison(directory: Path, text=HOSTILE) -> None:
    """Put `text` in every string that comes from a user's files, and in every gene name."""
    for stage in ("front", "search", "table", "supernet", "environment", "splits"):
        write(directory, stage, _poisoned(read(directory, stage), text))


_RENAMED = (
    *("architecture", "widths", "fingerprint", "metrics", "workloads", "corrections"),
    *("cross_validation_mape", "compute_plan", "CPU", "choices", "kinds", "genes"),
)


def _poisoned(value, text, key=""):
    if isinstance(value, dict):
        renamed = key in _RENAMED
        return {(k + text if renamed else k): _poisoned(v, text, k) for k, v in value.items()}
    if key == "objectives":
        return [name[:-3] + text + "_ms" if name[-3:] == "_ms" else name + text for name in value]
    if isinstance(value, list):
        return [_poisoned(v, text, key) for v in value]
    return value + text if isinstance(value, str) and key != "mode" else value


def read(directory: Path, stage: str) -> dict:
    return json.loads((directory / f"{stage}.json").read_text())


def write(directory: Path, stage: str, value: dict) -> None:
    (directory / f"{stage}.json").write_text(json.dumps(value))


def _latency(space, arch, workload) -> float:
    macs = space.cost(arch, workload).macs
    return 0.03 + 0.02 * len(space.subnet(arch).layers) + macs / 5e7


def _measured(truth, rng, noise=0.012) -> dict:
    median = truth * math.exp(rng.normal(0, noise))
    half = median * rng.uniform(0.005, 0.03)
    status = "ok" if half < 0.025 * median else "unstable"
    return {"median": median, "low": median - half, "high": median + half, "sessions": 5,
            "status": status}  # fmt: skip


def _build(
    directory, space, workloads, *, config, splits, quality, metric, mode, seed, evaluated, size
):
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    objective, test_metric = metric
    device = {
        "name": "cpu",
        "backend": "onnxruntime",
        "threads": 2,
        "fingerprint": {"cpu": "Example 9000", "cores": 2, "kernel": "6.1.0", "governor": None,
                        "onnxruntime": "1.31.0"},
    }  # fmt: skip
    largest = space.cost(space.largest).macs

    def values(arch):
        part = math.log(space.cost(arch).macs / 1e4) / math.log(largest / 1e4)
        times = [_latency(space, arch, w) for w in workloads.values()]
        return [quality(part, rng), *times]

    architectures = list(dict.fromkeys(space.sample(rng) for _ in range(evaluated)))
    architectures = list(dict.fromkeys([*space.uniform(12), *architectures]))
    points = [values(arch) for arch in architectures]
    everything = non_dominated(np.array(points))
    order = sorted(everything, key=lambda i: points[i][1])
    chosen = [order[i] for i in np.unique(np.linspace(0, len(order) - 1, size).round().astype(int))]
    uniform = space.uniform(5)
    names = ["smallest", "uniform-1", "uniform-2", "uniform-3", "largest"]
    objectives = [objective, *(f"{name}_ms" for name in workloads)]
    write(directory, "search", {
        "schema": 1, "device": device, "objectives": objectives, "bounds": [],
        "algorithm": "nsga2", "budget": evaluated, "seed": seed,
        "evaluated": [{"architecture": dict(a), "values": v}
                      for a, v in zip(architectures, points, strict=True)],
        "front": [int(i) for i in everything],
        "references": [{"name": n, "architecture": dict(a), "values": values(a)}
                       for n, a in zip(names, uniform, strict=True)],
    })  # fmt: skip

    subnets = []
    for position, index in enumerate(chosen):
        arch, cost = architectures[index], space.cost(architectures[index])
        found = points[index][0]
        test = found + rng.normal(0, 0.004)
        latencies = {
            workload: {"predicted_ms": time, "measured_ms": _measured(time, rng)}
            for workload, time in zip(workloads, points[index][1:], strict=True)
        }
        first = next(iter(latencies.values()))
        flip = (lambda x: 1 - x) if test_metric == "accuracy" else (lambda x: x)
        subnets.append({
            "name": f"s{position:02d}", "architecture": dict(arch), "values": points[index],
            "predicted_latency_ms": first["predicted_ms"],
            "measured_latency_ms": first["measured_ms"], "workloads": latencies,
            "quality": {"metric": test_metric, "validation": flip(found), "test": flip(test),
                        "test_se": 0.0072, "export_test": flip(test)},
            "macs": cost.macs, "parameters": cost.parameters, "size_bytes": cost.size_bytes,
            "kv_cache_bytes": cost.kv_cache_bytes, "precision": {}, "max_abs_difference": 2.1e-6,
            "export": f"exports/s{position:02d}.onnx",
        })  # fmt: skip
    write(directory, "front", {"schema": 1, "device": device, "objectives": objectives,
                               "subnets": subnets})  # fmt: skip

    rows = []
    for block in space.all_blocks():
        for workload_name, workload in workloads.items():
            time = 0.001 + space.block_cost(block, workload).macs / 5e7
            status = "ok" if rng.random() > 0.05 else "unstable"
            rows.append({"workload": workload_name, "kind": block.kind,
                         "widths": dict(block.widths), "latency_ms": time, "low_ms": time * 0.99,
                         "high_ms": time * 1.012, "sessions": 5, "status": status})  # fmt: skip
    whole = []
    for workload_name, workload in workloads.items():
        for _ in range(8):
            arch = space.sample(rng)
            truth = _latency(space, arch, workload)
            measured = _measured(truth, rng)
            whole.append({"workload": workload_name, "architecture": dict(arch),
                          "predicted_ms": truth, "measured_ms": measured["median"],
                          "low_ms": measured["low"], "high_ms": measured["high"],
                          "status": measured["status"]})  # fmt: skip
    write(directory, "table", {
        "schema": 1, "device": device, "mode": mode,
        "workloads": {n: w.to_json() for n, w in workloads.items()}, "rows": rows, "whole": whole,
        "corrections": {n: {"kind": "affine", "coefficients": [0.004, 1.013], "std": 0.011}
                        for n in workloads},
    })  # fmt: skip

    sanity = []
    for position, arch in enumerate(uniform):
        cost = space.cost(arch)
        found = values(arch)[0]
        sanity.append({"name": f"uniform-{position}", "architecture": dict(arch),
                       "parameters": cost.parameters, "macs": cost.macs,
                       "metrics": {test_metric: 1 - found if test_metric == "accuracy" else found,
                                   f"{test_metric}_se": 0.007, "cross_entropy": 0.1 + found,
                                   "cross_entropy_se": 0.01, "n": 359}})  # fmt: skip
    write(directory, "supernet", {
        "schema": 1, "family": space.family, "space": space.to_json(), "hash": "0123456789abcdef",
        "sanity": sanity, "warnings": [], "training": {"steps": 4000, "seconds": 181.4},
    })  # fmt: skip

    with (directory / "training.jsonl").open("w") as lines:
        for step in range(20, 4001, 20):
            decay = math.exp(-step / 700)
            noise = rng.normal(0, 0.03, 3)
            lines.write(json.dumps({
                "step": step, "loss_largest": 0.55 + 1.7 * decay + noise[0],
                "loss_smallest": 0.2 + 1.9 * decay + noise[1],
                "loss_random": 0.1 + 1.4 * decay + noise[2],
                "learning_rate": 2e-3 * (1 + math.cos(math.pi * step / 4000)) / 2,
                "samples_per_s": 5200.0, "elapsed_s": step / 22,
            }) + "\n")  # fmt: skip
        lines.write('{"step": 4020, "loss_lar')
    write(directory, "environment", {
        "python": "3.11.2", "platform": "Linux", "cpu_count": 2,
        "packages": {"torch": "2.13.0", "onnxruntime": "1.31.0", "numpy": "2.3.5"},
    })  # fmt: skip
    write(directory, "splits", splits)
    (directory / "config.yaml").write_text(config)
    return directory
