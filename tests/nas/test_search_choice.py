"""The best of a front within bounds."""

import numpy as np
import pytest

from nas.search.choice import best_within, parse_bounds
from search_spaces.errors import UserError

NAMES = ("latency_ms", "size_bytes")
VALUES = np.array([[1.0, 90.0], [2.0, 50.0], [3.0, 70.0], [3.0, 60.0]])
QUALITY = np.array([0.4, 0.3, 0.2, 0.2])


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("latency_ms <= 1.5", 0),
        ("latency_ms <= 2", 1),
        ("latency_ms < 2", 0),
        ("latency_ms <= 9", 3),
        ("latency_ms<=9,size_bytes<=55", 1),
        ("latency_ms <= 1, size_bytes <= 60", None),
    ],
)
def test_the_best_quality_within_all_bounds(text, best):
    assert best_within(VALUES, NAMES, QUALITY, parse_bounds(text, NAMES)) == best


def test_a_bound_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"bound ' macs <= 5': 'macs' is not an objective"):
        parse_bounds("latency_ms <= 2, macs <= 5", NAMES)
