"""What computes qualities for a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from nas.tasks import SplitName
from search_spaces import Architecture

Metrics = dict[str, float]
Judge = Callable[[Architecture, SplitName, float], Metrics]
"""Metrics of one subnet on a share of a split."""


class Executor(Protocol):
    """Computes the metrics of subnets. All pass `tests/nas/executor_contract.py`.

    All of them give the same bits, whatever the number of workers and the order of their ends.
    """

    @property
    def workers(self) -> int:
        """How many subnets are evaluated at a time."""

    def evaluate(
        self, architectures: Sequence[Architecture], split: SplitName, share: float = 1.0
    ) -> Iterator[tuple[Architecture, Metrics]]:
        """Metrics of each subnet, as soon as they are there, in any order.

        Args:
            architectures: Distinct ones.
            split: Name of the split.
            share: Share of it to judge them on.

        Raises:
            UserError: A subnet cannot be judged, or nobody is there to do it. What was given
                before is valid.
        """

    def close(self) -> None:
        """Give up what is held; a second call does nothing."""


class LocalExecutor:
    """This process, one subnet after another in the order asked."""

    workers = 1

    def __init__(self, judge: Judge) -> None:
        """Take what judges one subnet."""
        self._judge = judge

    def evaluate(
        self, architectures: Sequence[Architecture], split: SplitName, share: float = 1.0
    ) -> Iterator[tuple[Architecture, Metrics]]:
        """See `Executor`."""
        for arch in architectures:
            yield arch, self._judge(arch, split, share)

    def close(self) -> None:
        """See `Executor`; nothing is held."""
