"""What runs on a worker of Ray. Imports little, so that the process can be set up before torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nas.executors.executor import Metrics


class Worker:
    """Holds one supernet with its data, and judges one subnet at a time.

    Args:
        package: The bytes of `Package.to_bytes`, shape `(n,)` uint8: workers of a node share them.
    """

    def __init__(self, package: NDArray[Any]) -> None:
        # As the command line does: waiting threads do not spin. Read when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from nas.executors.package import Opened

        self._opened = Opened(package.data)

    def introduction(self) -> dict[str, Any]:
        """Where it runs, and what its arithmetic is."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return {"host": os.uname().nodename, "node": node, **self._opened.introduction()}

    def evaluate(self, arch: str, share: float) -> Metrics:
        """Metrics of the subnet of this JSON."""
        from search_spaces import Architecture

        return self._opened.evaluate(Architecture.from_json(arch), share)
