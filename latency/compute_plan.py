"""Where a runtime means to run the operations of a model, from the facts of its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latency.artifact import Artifact
from latency.store import LatencyStore


def compute_plan_of(
    artifact: Artifact, fingerprint: Mapping[str, str], store: LatencyStore
) -> dict[str, Any]:
    """The compute plan of a model in the last session that timed it.

    Args:
        artifact: The model.
        fingerprint: The device's.
        store: Where sessions are kept.

    Returns:
        `{"compute_plan": {DEVICE: {OPERATOR: n}}}`, as in
        `{"NeuralEngine": {"conv": 38}, "CPU": {"softmax": 3}}`; empty where the runtime tells no
        plan (all but CoreML), or the model was never timed.
    """
    found = store.last_timed(store.add_device(fingerprint), artifact.key)
    if found is None or "compute_plans" not in found[0]:
        return {}
    facts, position = found
    plan: Mapping[str, Mapping[str, int]] = facts["compute_plans"][position]
    short: dict[str, dict[str, int]] = {}
    for device, operators in plan.items():
        counts = short.setdefault(device.removeprefix("ML").removesuffix("ComputeDevice"), {})
        for operator, count in operators.items():
            name = operator.rpartition(".")[2]  # `ios17.softmax` says the opset too
            counts[name] = counts.get(name, 0) + count
    return {"compute_plan": short}
