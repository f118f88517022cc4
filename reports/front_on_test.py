"""How far a front that was found on validation moves when it is judged on the test split."""

from collections.abc import Iterator

import numpy as np

from nas.search.pareto import non_dominated
from reports import numbers
from reports.axes import TEST, Axis, metric_on_test, place
from reports.stages import Front, FrontSubnet


def sentences(front: Front, axes: tuple[Axis, ...]) -> Iterator[str]:
    """One sentence for each quality that was searched for, and one on what is left of the front.

    Args:
        front: The front; subnets without a figure on test are left out.
        axes: Its axes, as `reports.axes.axes` gives them.
    """
    qualities = [axis for axis in axes if axis.kind == "quality" and axis.id in front.objectives]
    found = [(subnet, _on_test(front, subnet, axes)) for subnet in front.subnets if subnet.values]
    kept = [
        (subnet.name, list(subnet.values), test)
        for subnet, test in found
        if not any(value is None for value in (*subnet.values, *test))
    ]
    if len(kept) < 2 or not qualities:
        return
    names = [name for name, _, _ in kept]
    validation = np.array([values for _, values, _ in kept], dtype=np.float64)
    test = np.array([values for _, _, values in kept], dtype=np.float64)
    for axis in qualities:
        column = front.objectives.index(axis.id)
        moved = test[:, column] - validation[:, column]
        most = int(np.argmax(np.abs(moved)))
        yield (
            f"From validation to test the {axis.id.replace('_', ' ')} of the {len(kept)} subnets "
            f"moves by {_signed(axis, float(moved.mean()))} on average; the standard deviation of "
            f"the moves is {_size(axis, float(moved.std(ddof=1)))}, the largest "
            f"{_signed(axis, float(moved[most]))} ({names[most]})."
        )
    before, after = set(non_dominated(validation)), set(non_dominated(test))
    lost = [names[i] for i in sorted(before - after)]
    gone = f"; dominated there: {', '.join(lost)}" if lost else ""
    yield f"{len(before & after)} of {len(before)} are still on the front on test{gone}."


def _on_test(front: Front, subnet: FrontSubnet, axes: tuple[Axis, ...]) -> list[float | None]:
    """Objectives of a subnet with every quality on test."""
    if subnet.values_on_test:
        return subnet.values_on_test
    # Older files hold one metric on test, which may be the objective or its complement.
    on_test = next((axis for axis in axes if axis.id == TEST), None)
    result = list(subnet.values)
    for axis in axes:
        if axis.kind == "quality" and axis.id in front.objectives:
            known = on_test is not None and metric_on_test(front) == axis.id
            value = place(front, subnet, on_test).measured if on_test and known else None
            result[front.objectives.index(axis.id)] = value
    return result


def _signed(axis: Axis, value: float) -> str:
    return ("+" if value >= 0 else "\N{MINUS SIGN}") + _size(axis, abs(value))


def _size(axis: Axis, value: float) -> str:
    if axis.fraction:
        return f"{100 * value:.2f} percentage points"
    return numbers.metric_value(axis.id, value)
