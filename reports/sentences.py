"""What stage files tell of predictors and devices, each in a sentence or none."""

from collections.abc import Iterator, Mapping
from typing import Any

from reports import numbers
from reports.stages import FrontSubnet, Interpolation

NEURAL_ENGINE = "NeuralEngine"
_OPERATORS_SHOWN = 6
_TOLD = ("kind", "source", "std", "subnets", "cross_validation_mape", "places", "weights")
"""Keys of a correction that `predictor` puts into words, and those that are for machines."""


def predictor(fit: Mapping[str, Any]) -> str:
    """Which predictor a workload has, and how far off the candidates were; "" if it is not told.

    Args:
        fit: Of `corrections` in `table.json`.
    """
    if "kind" not in fit:
        return ""
    parts = [_kind(str(fit["kind"]), fit.get("source"))]
    if subnets := fit.get("subnets"):
        parts.append(f"fitted on {subnets} whole subnets")
    if isinstance(fit.get("std"), int | float):
        parts.append(f"standard deviation {numbers.percent(fit['std'])}")
    errors = fit.get("cross_validation_mape")
    if isinstance(errors, dict) and errors:
        each = ", ".join(f"{name} {numbers.percent(error)}" for name, error in errors.items())
        parts.append(f"cross-validated MAPE: {each}")
    return "; ".join(parts)


def rest(fit: Mapping[str, Any]) -> dict[str, Any]:
    """What else there is to tell: the coefficients, and keys that nothing here knows."""
    return {key: value for key, value in fit.items() if key not in _TOLD}


def interpolation(errors: list[Interpolation], workload: str) -> Iterator[str]:
    """How far off the interpolated rows of a workload are, a sentence per kind that has any."""
    for error in errors:
        if error.workload != workload or not error.interpolated:
            continue
        text = f"{error.interpolated} {error.kind} rows interpolated"
        if error.mape is None:
            yield f"{text}, their error not measured"
        else:
            yield (
                f"{text} ({error.method}): {numbers.percent(error.mape)} off on average, "
                f"{numbers.percent(error.worst)} at worst, on {error.held_out} held-out blocks"
            )


def compute_plans(subnet: FrontSubnet) -> Iterator[str]:
    """What of a subnet is not on the Neural Engine, a sentence per workload that has a plan."""
    for workload, latency in subnet.latencies.items():
        plan = latency.compute_plan
        total = sum(sum(operators.values()) for operators in plan.values())
        if not total:
            continue
        prefix = f"{workload}: " if len(subnet.latencies) > 1 else ""
        elsewhere = [
            (count, operator, device)
            for device, operators in plan.items()
            if device != NEURAL_ENGINE
            for operator, count in operators.items()
        ]
        if not elsewhere:
            yield f"{prefix}all {total} operations on the Neural Engine"
            continue
        elsewhere.sort(key=lambda entry: (-entry[0], *entry[1:]))
        away = sum(count for count, _, _ in elsewhere)
        shown = [
            f"{operator} ({device}{f', {count}' * (count > 1)})"
            for count, operator, device in elsewhere[:_OPERATORS_SHOWN]
        ]
        if len(elsewhere) > len(shown):
            shown.append(f"… ({len(elsewhere)} in all)")
        yield f"{prefix}{away} of {total} operations not on the Neural Engine: {', '.join(shown)}"


def _kind(kind: str, source: object) -> str:
    if kind == "factors":
        return (
            "predictor: sums of the table, corrected for kinds of block, size and number of blocks"
        )
    if kind == "transfer":
        return f"predictor: transferred from the table of {source}"
    return f"predictor: {kind}"
