"""What runs in the fresh process of a session: `python -m latency.session`.

Reads one JSON line on stdin and writes JSON lines on stdout: which model is in work, and at
last the reply. Imports numpy, onnxruntime and the standard library only, so that it starts in
a third of a second. It ends by itself when stdin closes: a killed parent leaves no busy orphan.

The sessions of other runtimes (`latency.torch_session`, ...) are this loop with their own
`Runtime`; onnxruntime is imported by `OnnxRuntime` alone.

Timing: `perf_counter_ns` around each `run_with_iobinding`, inputs and outputs bound beforehand
to the memory of the provider. So: transfers excluded, no allocation of outputs, hot cache (the
first run of a block is not timed unless it would be a large part of it).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from latency import host_facts
from latency.digest import model_sha256

MAX_SAMPLES = 200
"""Raw samples kept per block."""


class Rejected(Exception):
    """The runtime refuses this model or its outputs are wrong."""


class Loaded(Protocol):
    """A model in a runtime, with its inputs where the runtime wants them."""

    outputs: Mapping[str, Any]
    """What the first run gave, by output name; numpy arrays."""

    def time_run(self) -> int:
        """Run once; latency in ns."""


class Runtime(Protocol):
    """What loads and runs the models of a session."""

    def missing(self) -> str | None:
        """Why this machine cannot run any model, and what to do; None where it can."""

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
        self.loaded = runtime.load(path, inputs)
        got = self.loaded.outputs
        if missing := set(outputs) - set(got):
            raise Rejected(f"no output {', '.join(sorted(missing))} among {', '.join(got)}")
        self.difference = _compare(got, outputs, request)
        self.run_ns = min(self.time_run() for _ in range(2))

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


class OnnxRuntime:
    """onnxruntime with one provider, which must really take nodes."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.request = request
        self.nodes: list[dict[str, int]] = []

    def missing(self) -> str | None:
        """See `Runtime`: the provider is not in this onnxruntime."""
        provider, available = self.request["provider"], self.onnxruntime.get_available_providers()
        if provider in available:
            return None
        return (
            f"provider {provider} is not in onnxruntime {self.onnxruntime.__version__} here, "
            f"which has {', '.join(available)}; choose one in the device profile"
        )

    def load(self, path: Path, inputs: Mapping[str, Any]) -> OnnxModel:
        """See `Runtime`.

        Raises:
            Rejected: The provider did not load, or took no node.
        """
        provider = self.request["provider"]
        session = self.onnxruntime.InferenceSession(
            path.read_bytes(),
            sess_options=self._options(),
            providers=[(provider, self.request["options"])],
        )
        # onnxruntime falls back to the CPU in silence, for the whole model or node by node
        if session.get_providers()[0] != provider:
            raise Rejected(f"{provider} did not load; {session.get_providers()}")
        nodes: dict[str, int] = {}
        for part in session.get_provider_graph_assignment_info():
            nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
        if nodes and provider not in nodes:
            raise Rejected(f"{provider} takes no node of this model; {', '.join(nodes)} took all")
        self.nodes.append(nodes)
        return OnnxModel(self.onnxruntime, session, provider, inputs)

    def facts(self) -> dict[str, Any]:
        """See `Runtime`: version, provider, and how many nodes went to which provider."""
        return {
            "provider": self.request["provider"],
            "spinning": self.request["spinning"],
            "provider_options": self.request["options"],
            "nodes": self.nodes,
            "onnxruntime": self.onnxruntime.__version__,
            "io": f"inputs and outputs bound in {_memory(self.request['provider'])} memory, "
            "hot cache",
        }

    def _options(self) -> Any:
        result = self.onnxruntime.SessionOptions()
        result.intra_op_num_threads = self.request["threads"]
        result.inter_op_num_threads = 1
        result.execution_mode = self.onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        result.log_severity_level = 3
        spinning = "1" if self.request["spinning"] else "0"
        result.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        # Models share the process: the threads of one must not spin on into the block of the next
        result.add_session_config_entry("session.force_spinning_stop", "1")
        result.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return result


class OnnxModel:
    """A session with bound inputs and outputs; see `Loaded`."""

    def __init__(
        self, onnxruntime: Any, session: Any, provider: str, inputs: Mapping[str, Any]
    ) -> None:
        self.session = session
        names = [output.name for output in session.get_outputs()]
        self.outputs: Mapping[str, Any] = dict(
            zip(names, session.run(None, dict(inputs)), strict=True)
        )
        self.bound = session.io_binding()
        memory = _memory(provider)

        def place(value: Any) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), memory, 0)

        # Keep the OrtValues: a binding does not own the memory behind them
        self.values = [place(value) for value in (*inputs.values(), *self.outputs.values())]
        for name, value in zip(inputs, self.values, strict=False):
            self.bound.bind_ortvalue_input(name, value)
        for name, value in zip(names, self.values[len(inputs) :], strict=True):
            self.bound.bind_ortvalue_output(name, value)

    def time_run(self) -> int:
        """See `Loaded`."""
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(self.bound)
        return time.perf_counter_ns() - start


def _memory(provider: str) -> str:
    """Where inputs and outputs lie: on the GPU for the providers that compute there."""
    return "cuda" if provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider") else "cpu"


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
        request: models (the anchor first; each sha256, path, feeds, tolerance), threads,
            affinity (CPU numbers or null), seed, rounds, block_ms, warmup_s, anchor_blocks, and
            what the runtime asks for.
        runtime: What loads and runs the models.

    Returns:
        `{"models": [...], "facts": {...}}`, `{"rejected": {sha256: reason}}` or
        `{"missing": what Runtime.missing says}`.
    """
    if missing := runtime.missing():
        return {"missing": missing}
    if request["affinity"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["affinity"])
    started, before = time.time(), host_facts.state()
    models, rejected = _load(request, runtime)
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
            for m, b in zip(models, blocks, strict=True)
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


def main(open_runtime: Callable[[dict[str, Any]], Runtime]) -> None:
    """Serve the one request on stdin."""
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 1 << 16)):
            sys.exit("no request on stdin")
        line += piece
    request = json.loads(line)
    _die_with(request["parent_pid"])
    _emit({"reply": serve(request, open_runtime(request))})


if __name__ == "__main__":
    main(OnnxRuntime)
