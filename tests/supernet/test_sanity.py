import json
import math
from collections.abc import Mapping

import pytest

from search_spaces import Architecture, VisionTransformerSpace
from supernet.sanity import sanity_table, sanity_warnings

SPACE = VisionTransformerSpace(
    image_size=4,
    patch_size=2,
    channels=1,
    num_classes=3,
    head_dim=2,
    embed=(4, 6, 8, 10, 12),
    depth=(1, 2),
    heads=(1, 2),
    ffn=(4, 8),
)


def row(size: int, **metrics: float) -> dict[str, object]:
    return {"name": f"uniform-{size}", "parameters": size, "metrics": metrics}


def test_the_table_has_uniform_subnets_from_small_to_large() -> None:
    def evaluate(arch: Architecture) -> Mapping[str, float]:
        return {"error": 1.0 / SPACE.cost(arch).parameters, "error_se": 0.0}

    rows, warnings = sanity_table(SPACE, evaluate, quality="error")
    assert warnings == []
    assert [r["name"] for r in rows] == [f"uniform-{i}" for i in range(5)]
    assert [SPACE.architecture(r["architecture"]) for r in rows] == SPACE.uniform(5)
    sizes = [r["parameters"] for r in rows]
    assert sizes == sorted(sizes)
    assert rows[-1]["macs"] == SPACE.cost(SPACE.largest).macs
    json.dumps(rows)


def test_a_missing_metric_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="error"):
        sanity_table(SPACE, lambda arch: {"accuracy": 1.0}, quality="error")


def test_a_larger_one_that_is_clearly_worse_is_named_with_the_worst_pair() -> None:
    rows = [
        row(10, error=0.30, error_se=0.01),
        row(20, error=0.10, error_se=0.01),
        row(30, error=0.20, error_se=0.01),
        row(40, error=0.11, error_se=0.01),
    ]
    (warning,) = sanity_warnings(rows[::-1], "error")
    assert warning.startswith("SUPERNET NOT SANE: uniform-30 (30 parameters) has error 0.2, worse ")
    assert "uniform-20 (20 parameters) with 0.1" in warning
    assert "combined standard error is 0.014" in warning
    assert "Train for more steps" in warning


@pytest.mark.parametrize(("gap", "warns"), [(0.0282, False), (0.0284, True)])
def test_the_limit_is_two_combined_standard_errors(gap: float, warns: bool) -> None:
    rows = [row(1, error=0.1, error_se=0.01), row(2, error=0.1 + gap, error_se=0.01)]
    assert bool(sanity_warnings(rows, "error")) == warns


def test_accuracy_grows_and_without_standard_errors_any_fall_counts() -> None:
    rows = [row(1, accuracy=0.5), row(2, accuracy=0.6)]
    assert sanity_warnings(rows, "accuracy") == []
    rows.append(row(3, accuracy=0.59))
    assert len(sanity_warnings(rows, "accuracy")) == 1


def test_a_quality_that_is_not_a_number_is_reported_once() -> None:
    rows = [row(1, error=0.5), row(2, error=math.nan), row(3, error=0.4)]
    (warning,) = sanity_warnings(rows, "error")
    assert "error of uniform-2 is nan" in warning
