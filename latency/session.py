"""What runs in the fresh process of a session: `python -m latency.session`.

Part of the agent (Python 3.9): the same code times on this host and on a device.

Reads one JSON line on stdin and writes JSON lines on stdout: which model is in work, and at
last the reply. Imports numpy, onnxruntime and the standard library only, so that it starts in
a third of a second. It ends by itself when stdin closes: a killed parent leaves no busy orphan.

Timing: `perf_counter_ns` around each `run_with_iobinding`, inputs and outputs bound beforehand
to host memory. So: transfers excluded (there are none on a CPU), no allocation of outputs, hot
cache (the first run of a block is not timed unless it would be a large part of it).
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import platform
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from latency import host_facts

MAX_SAMPLES = 200
"""Raw samples kept per block."""


class Rejected(Exception):
    """The runtime refuses this model or its outputs are wrong."""


class Model:
    """A loaded model with bound inputs and outputs, checked against its reference."""

    def __init__(self, request: dict[str, Any], options: dict[str, Any]) -> None:
        self.sha256: str = request["sha256"]
        content = Path(request["path"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise Rejected(f"{request['path']} changed since it was hashed; export it again")
        self.session = ort.InferenceSession(
            content, sess_options=_session_options(options), providers=[options["provider"]]
        )
        # onnxruntime falls back to the CPU in silence
        if self.session.get_providers()[0] != options["provider"]:
            raise Rejected(f"{options['provider']} did not load; {self.session.get_providers()}")
        with np.load(request["feeds"], allow_pickle=False) as arrays:
            values = {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
        inputs = {n.removeprefix("input:"): v for n, v in values.items() if n.startswith("input:")}
        outputs = {
            n.removeprefix("output:"): v for n, v in values.items() if n.startswith("output:")
        }
        names = [output.name for output in self.session.get_outputs()]
        if missing := set(outputs) - set(names):
            raise Rejected(f"no output {', '.join(sorted(missing))} among {', '.join(names)}")
        results = self.session.run(None, inputs)
        self.difference = _compare(dict(zip(names, results)), outputs, request)
        self.bound = self._bind(inputs, dict(zip(names, results)))
        self.run_ns = min(self.time_run() for _ in range(2))

    def _bind(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        binding = self.session.io_binding()
        # Keep the OrtValues: a binding does not own the memory behind them
        self.values = {n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in inputs.items()}
        for name, value in self.values.items():
            binding.bind_ortvalue_input(name, value)
        for name, output in outputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(output))
            self.values[f"output {name}"] = value
            binding.bind_ortvalue_output(name, value)
        return binding

    def time_run(self) -> int:
        """Latency of one run, ns."""
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(self.bound)
        return time.perf_counter_ns() - start

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


def _session_options(options: dict[str, Any]) -> ort.SessionOptions:
    result = ort.SessionOptions()
    result.intra_op_num_threads = options["threads"]
    result.inter_op_num_threads = 1
    result.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    result.log_severity_level = 3
    spinning = "1" if options["spinning"] else "0"
    result.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    # Models share the process: the threads of one must not spin on into the block of the next
    result.add_session_config_entry("session.force_spinning_stop", "1")
    return result


def _compare(got: dict[str, Any], wanted: dict[str, Any], request: dict[str, Any]) -> float:
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


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run one session.

    Args:
        request: models (the anchor first; each sha256, path, feeds, tolerance), threads,
            provider, spinning, affinity (CPU numbers or null), seed, rounds, block_ms,
            warmup_s, anchor_blocks.

    Returns:
        `{"models": [...], "facts": {...}}`, `{"rejected": {sha256: reason}}` or
        `{"unavailable": [providers]}`.
    """
    if request["provider"] not in ort.get_available_providers():
        return {"unavailable": ort.get_available_providers(), "onnxruntime": ort.__version__}
    if request["affinity"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["affinity"])
    started, before = time.time(), host_facts.state()
    models, rejected = _load(request)
    if rejected:
        return {"rejected": rejected}
    block_ns = request["block_ms"] * 1e6
    _emit({"estimate_s": _estimate_s(models, request)})
    for index, model in enumerate(models):
        _emit({"stage": "warm up", "model": index})
        model.warm_up(request["warmup_s"] / len(models))
    gc.collect()
    gc.disable()
    blocks: list[list[dict[str, Any]]] = [[] for _ in models]
    for position, (round_, index) in enumerate(_order(len(models), request)):
        _emit({"stage": "time", "model": index})
        samples, preempted = models[index].block(block_ns)
        blocks[index].append(_summary(samples, preempted, round_, position))
    return {
        "models": [
            {"sha256": m.sha256, "blocks": b, "max_abs_difference": m.difference}
            for m, b in zip(models, blocks)
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
            "spinning": request["spinning"],
            "provider": models[0].session.get_providers()[0],
            "onnxruntime": ort.__version__,
            "python": platform.python_version(),
            "io": "inputs and outputs bound in host memory, hot cache",
            "seed": request["seed"],
            "involuntary_switches": _involuntary_switches(),
        },
    }


def _load(request: dict[str, Any]) -> tuple[list[Model], dict[str, str]]:
    models, rejected = [], {}
    for index, wanted in enumerate(request["models"]):
        _emit({"stage": "load", "model": index})
        try:
            models.append(Model(wanted, request))
        except Exception as error:  # onnxruntime's errors share no base class
            rejected[wanted["sha256"]] = " ".join(str(error).split())[:500]
    return models, rejected


def _estimate_s(models: list[Model], request: dict[str, Any]) -> float:
    """Expected seconds from here on; a block of a slow model is two runs long."""
    block_s = [max(request["block_ms"] / 1e3, 2 * model.run_ns / 1e9) for model in models]
    anchor = 2 * request["anchor_blocks"] * block_s[0]
    runs = sum(model.run_ns / 1e9 for model in models)
    return float(request["warmup_s"] + runs + anchor + request["rounds"] * sum(block_s))


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


def main() -> None:
    """Serve the one request on stdin."""
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 1 << 16)):
            sys.exit("no request on stdin")
        line += piece
    request = json.loads(line)
    _die_with(request["parent_pid"])
    _emit({"reply": serve(request)})


if __name__ == "__main__":
    main()
