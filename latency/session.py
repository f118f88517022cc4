"""What runs in the fresh process of a session: loads, compares, warms up, times in blocks.

Part of the agent (Python 3.9): the same code times on this host and on a device.

Reads one JSON line on stdin and writes JSON lines on stdout: which model is in work, and at
last the reply. It ends by itself when stdin closes: a killed parent leaves no busy orphan.

The runtime that the request names (`RUNTIMES`) loads and runs the models; its module alone
imports it, so that a session of onnxruntime starts in a third of a second.

Hot cache: the first run of a block is not timed unless it would be a large part of it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from latency import host_facts, nvidia
from latency.calm import PROBE_NS, SLOW_ANCHOR, CalmBlocks
from latency.digest import model_sha256
from latency.energy import Meter, energy_mj, open_meter
from latency.memory import PeakMemory

MAX_SAMPLES = 200
"""Raw samples kept per block."""
RUNTIMES = {
    "onnxruntime": ("latency.onnxruntime_session", "OnnxRuntime"),
    "torch": ("latency.torch_session", "TorchRuntime"),
    "tensorrt": ("latency.tensorrt_session", "TensorRTRuntime"),
    "coreml": ("latency.coreml_session", "CoreMLRuntime"),
}
"""Module and class of each `Runtime`; made from the request."""


class Rejected(Exception):
    """The runtime refuses this model or its outputs are wrong."""


class Refused(Exception):
    """This machine cannot run any model so; the message says why and what to do."""


class Loaded(Protocol):
    """A model in a runtime, with its inputs where the runtime wants them."""

    outputs: Mapping[str, Any]
    """What the first run gave, by output name; numpy arrays."""

    def time_run(self) -> int:
        """Run once; latency in ns."""


class Runtime(Protocol):
    """What loads and runs the models of a session; made from the request, or `Refused`."""

    def load(self, path: Path, inputs: Mapping[str, Any]) -> Loaded:
        """Load a model and run it once.

        Raises:
            Exception: The runtime refuses it.
        """

    def facts(self) -> dict[str, Any]:
        """JSON-able facts to store with the session."""


class Model:
    """A loaded model, checked against its reference."""

    def __init__(self, request: dict[str, Any], runtime: Runtime) -> None:
        self.sha256: str = request["sha256"]
        path = Path(request["path"])
        if model_sha256(path) != self.sha256:
            raise Rejected(f"{request['path']} changed since it was hashed; export it again")
        with np.load(request["feeds"], allow_pickle=False) as arrays:
            values = {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
        inputs = {n.removeprefix("input:"): v for n, v in values.items() if n.startswith("input:")}
        outputs = {
            n.removeprefix("output:"): v for n, v in values.items() if n.startswith("output:")
        }
        memory = PeakMemory()
        self.loaded = runtime.load(path, inputs)
        got = self.loaded.outputs
        if missing := set(outputs) - set(got):
            raise Rejected(f"no output {', '.join(sorted(missing))} among {', '.join(got)}")
        self.difference = _compare(got, outputs, request)
        self.run_ns = min(self.time_run() for _ in range(2))
        self.peak_memory_bytes = memory.grown_bytes()

    def time_run(self) -> int:
        """Latency of one run, ns."""
        return self.loaded.time_run()

    def warm_up(self, share_s: float) -> None:
        """Run for `share_s` and until two 20-sample halves agree to 2 %, at most 5 times that."""
        samples: list[int] = []
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < max(5 * share_s, 0.02):
            samples.append(self.time_run())
            if elapsed >= share_s and len(samples) >= 40:
                older, newer = np.median(samples[-40:-20]), np.median(samples[-20:])
                if abs(newer / older - 1) <= 0.02:
                    break

    def block(self, block_ns: float) -> tuple[list[int], int]:
        """Latencies of one block of at least `block_ns`, ns, and the number of runs left out.

        A run in which the scheduler gave a core of ours to another process is foreign load, not
        latency: it is left out, unless all runs of the block were like that.
        """
        if 4 * self.run_ns < block_ns:  # a slow model refills the caches within its run
            self.time_run()
        calm: list[int] = []
        preempted: list[int] = []
        switches = _involuntary_switches()
        end = time.perf_counter_ns() + block_ns
        while time.perf_counter_ns() < end or not calm + preempted:
            sample = self.time_run()
            before, switches = switches, _involuntary_switches()
            (calm if switches == before else preempted).append(sample)
        return (calm, len(preempted)) if calm else (preempted, 0)

    def energy_mj(self, meter: Meter) -> float | None:
        """Energy of one run, mJ; None where the meter does not tell."""
        runs, before, end = 0, meter.read_mj(), time.perf_counter() + meter.block_s
        while time.perf_counter() < end:
            self.time_run()
            runs += 1
        return energy_mj(before, meter.read_mj(), runs)


def _compare(got: Mapping[str, Any], wanted: dict[str, Any], request: dict[str, Any]) -> float:
    worst = 0.0
    for name, reference in wanted.items():
        output = np.asarray(got[name])
        if output.shape != reference.shape:
            raise Rejected(f"output {name} has shape {output.shape}, wanted {reference.shape}")
        difference = np.abs(output.astype(np.float64) - reference.astype(np.float64))
        limit = request["tolerance"] * (1 + np.abs(reference.astype(np.float64)))
        if not np.all(difference <= limit):  # NaN fails too
            raise Rejected(
                f"output {name} differs from the reference by {np.max(difference):.3g}, "
                f"tolerance {request['tolerance']:g}"
            )
        worst = max(worst, float(np.max(difference, initial=0.0)))
    return worst


def serve(request: dict[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Run one session.

    Args:
        request: models (the anchor first; each sha256, path, feeds, tolerance), threads, seed,
            rounds, block_ms, warmup_s, anchor_blocks, patience, baseline_ns, and what the
            runtime asks for. Without models, nothing is timed: the runtime is there.
        runtime: What loads and runs the models.

    Returns:
        `{"models": [...], "facts": {...}}` or `{"rejected": {sha256: reason}}`.
    """
    if not request["models"]:
        return {"models": [], "facts": {}}
    started, before = time.time(), host_facts.state()
    models, rejected = _load(request, runtime)
    if rejected:
        return {"rejected": rejected}
    block_ns = request["block_ms"] * 1e6
    order, blocks_s = _order(len(models), request), _blocks_s(models, request)
    probes_s = (len(models) + len(order)) * PROBE_NS / 1e9
    runs_s = sum(model.run_ns for model in models) / 1e9
    # From here on, on a calm machine
    _emit({"estimate_s": float(request["warmup_s"] + runs_s + probes_s + blocks_s)})
    patience_s = request["patience"] * blocks_s
    probed = SLOW_ANCHOR * models[0].run_ns <= block_ns
    calm = CalmBlocks(models[0].time_run, patience_s if probed else 0.0, request["baseline_ns"])
    for index, model in enumerate(models):
        _emit({"stage": "warm up", "model": index})
        model.warm_up(request["warmup_s"] / len(models))
        _emit({"stage": "warm up", "model": 0})
        calm.probe()
    gc.collect()
    gc.disable()

    def timed(index: int) -> tuple[list[int], int]:
        _emit({"stage": "time", "model": index})
        found = models[index].block(block_ns)
        _emit({"stage": "time", "model": 0})  # the anchor tells of the machine between blocks
        return found

    blocks: list[list[dict[str, Any]]] = [[] for _ in models]
    for position, (round_, index) in enumerate(order):
        samples, preempted = calm.timed(partial(timed, index))
        blocks[index].append(_summary(samples, preempted, round_, position))
    meter, no_meter = open_meter(gpu=nvidia.has_models(request))
    energies: list[float | None] = [None] * len(models)
    if meter is not None:
        for index, model in enumerate(models):
            _emit({"stage": "energy", "model": index})
            energies[index] = model.energy_mj(meter)
    return {
        "models": [
            {
                "sha256": m.sha256,
                "blocks": b,
                "max_abs_difference": m.difference,
                "energy_mj": e,
                # What lies on a GPU is not resident memory
                "peak_memory_bytes": None if nvidia.has_models(request) else m.peak_memory_bytes,
            }
            for m, b, e in zip(models, blocks, energies)
        ],
        "facts": {
            "pid": os.getpid(),
            "started_at": started,
            "ended_at": time.time(),
            "before": before,
            "after": host_facts.state(),
            "cpu": host_facts.cpu_model(),
            "governor": host_facts.governor(),
            "affinity": host_facts.available_cpus(),
            "threads": request["threads"],
            "python": platform.python_version(),
            "seed": request["seed"],
            "involuntary_switches": _involuntary_switches(),
            "blocks": len(order),
            "repeated_blocks": calm.repeated,
            "disturbed_blocks": calm.disturbed,
            "energy_meter": meter.name if meter else None,
            "no_energy": no_meter,
            **runtime.facts(),
        },
    }


def _load(request: dict[str, Any], runtime: Runtime) -> tuple[list[Model], dict[str, str]]:
    models, rejected = [], {}
    for index, wanted in enumerate(request["models"]):
        _emit({"stage": "load", "model": index})
        try:
            models.append(Model(wanted, runtime))
        except Exception as error:  # the errors of runtimes share no base class
            rejected[wanted["sha256"]] = " ".join(str(error).split())[:500]
    return models, rejected


def _blocks_s(models: list[Model], request: dict[str, Any]) -> float:
    """Expected seconds of all blocks; one of a slow model is two runs long."""
    block_s = [max(request["block_ms"] / 1e3, 2 * model.run_ns / 1e9) for model in models]
    anchor = 2 * request["anchor_blocks"] * block_s[0]
    return float(anchor + request["rounds"] * sum(block_s))


def _order(count: int, request: dict[str, Any]) -> list[tuple[int, int]]:
    """(round, model) of every block: the anchor alone first and last, random rounds between."""
    shuffler = random.Random(request["seed"])
    order = [(-1, 0)] * request["anchor_blocks"]
    for round_ in range(request["rounds"]):
        order += [(round_, index) for index in shuffler.sample(range(count), count)]
    return order + [(request["rounds"], 0)] * request["anchor_blocks"]


def _summary(samples: list[int], preempted: int, round_: int, position: int) -> dict[str, Any]:
    step = -(-len(samples) // MAX_SAMPLES)
    return {
        "round": round_,
        "position": position,
        "count": len(samples),
        "preempted": preempted,
        "median_ns": float(np.median(samples)),
        "low_quartile_ns": float(np.quantile(samples, 0.25)),
        "samples_ns": samples[::step],
    }


def _involuntary_switches() -> int:
    """Times that another process took a core from this one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _emit(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _die_with(parent: int) -> None:
    """End when the parent ends, however it ends: Linux kills us; elsewhere stdin closes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pin(cpus: Sequence[int] | None) -> None:
    """Keep this process to some CPUs, before the runtime starts threads of its own.

    Raises:
        Refused: The system cannot, or has no such CPUs.
    """
    if cpus is None:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError) as error:
        raise Refused(f"affinity {list(cpus)} is not possible ({error}); change it") from None


def open_runtime(request: dict[str, Any]) -> Runtime:
    """The runtime that a request names.

    Raises:
        Refused: It is not installed here, or this machine cannot run it.
    """
    module, name = RUNTIMES[request["runtime"]]
    try:
        runtime: Runtime = getattr(importlib.import_module(module), name)(request)
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise Refused(f"{request['runtime']} does not start: {reason}; install it") from None
    return runtime


def main() -> None:
    """Serve the one request on stdin."""
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 1 << 16)):
            sys.exit("no request on stdin")
        line += piece
    request = json.loads(line)
    _die_with(request["parent_pid"])
    try:
        if "build" in request:
            from latency.tensorrt_engine import serve_build

            reply = serve_build(request["build"])
        else:
            _pin(request["affinity"])
            reply = serve(request, open_runtime(request))
    except Refused as error:
        reply = {"refused": str(error)}
    _emit({"reply": reply})
