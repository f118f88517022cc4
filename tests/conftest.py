"""Property tests draw the same examples every time; `--hypothesis-profile=default` draws others.

Tests marked `gpu` are skipped where there is no GPU.
"""

import pytest
from hypothesis import settings

from latency import nvidia

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, and say why."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and (lacking := nvidia.missing()):
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason=lacking))
