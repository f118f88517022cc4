"""Property tests draw the same examples every time; `--hypothesis-profile=default` draws others.

Tests marked `gpu` are skipped where there is no GPU. All share a cache of their own, which begins
empty.
"""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from latency import nvidia

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


CACHE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Let the tests' processes, those of xdist too, find one cache, and not that of the user."""
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache."""
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, and say why."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and (lacking := nvidia.missing()):
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason=lacking))
