"""Linear algebra on one thread: sums in one order, and no processes that wait for one another."""

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any


def one_thread() -> AbstractContextManager[Any]:
    """Within it, BLAS uses one thread.

    How many threads share a sum changes its last digits, and with them what a search asks next.
    Matrices of a search are small, so that more threads would save little.
    """
    limits: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limits


@lru_cache(maxsize=1)
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, which has to be loaded by now)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
