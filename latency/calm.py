"""Blocks that are timed while the machine is calm: runs of the anchor around them tell.

Part of the agent (Python 3.9).

On a shared host a neighbour on the other hardware thread of a core slows it by half, for a tenth
of a second to seconds, and no counter tells. With several threads the slowest core decides, so
that every other block is hit. Only the anchor is judged, so no candidate is favoured: what is
kept of it does not depend on what it took.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from typing import Any

PROBE_NS = 5_000_000
"""A probe runs the anchor for so long, at least twice: threads wake up slowly."""
SLOW_ANCHOR = 10
"""An anchor that fits in a block fewer times than this would be probed for too long."""
LIMIT = 1.05
"""A probe slower than the calm ones of its session times this says that the machine is busy."""
SAME_STATE = 1.1
"""Latencies of the anchor that are further apart, as a ratio, are of two states of a device."""
CALM_SHARE = 0.1
"""The probe that so many are faster than is a calm one."""


class CalmBlocks:
    """Times blocks between probes, and again where a probe says that the machine was busy.

    Args:
        run: Runs the anchor once; its latency in ns.
        patience_s: Time to spend on waiting and on timing blocks again; 0 asks for no probes.
        baseline_ns: What the anchor takes on the calm machine; None where that is not known.
            Calm probes of the session that are a little lower count by 5 % at most, lest a clock
            that was boosted for a while pass for the usual one; much lower ones show that the
            baseline was taken on a slower machine.
    """

    def __init__(
        self, run: Callable[[], int], patience_s: float, baseline_ns: float | None = None
    ) -> None:
        self._run = run
        self._baseline_ns = baseline_ns
        self._left_ns = patience_s * 1e9
        self._probing = patience_s > 0
        self._probes: list[int] = []
        self.repeated = 0
        """Blocks that were timed again."""
        self.disturbed = 0
        """Blocks that were kept though the machine was busy, since patience was at its end."""

    def probe(self) -> None:
        """Look at the machine, between blocks."""
        if self._probing:
            self._last = self._shortest()
            bisect.insort(self._probes, self._last)

    def _shortest(self) -> int:
        """The shortest of some runs of the anchor, ns."""
        end = time.perf_counter_ns() + PROBE_NS
        shortest = min(self._run(), self._run())
        while time.perf_counter_ns() < end:
            shortest = min(shortest, self._run())
        return shortest

    def timed(self, block: Callable[[], Any]) -> Any:
        """What a call of `block` gave: the first one between calm probes, else the calmest."""
        if not self._probing:
            return block()
        calmest, result = float("inf"), None
        while True:
            start = time.perf_counter_ns()
            before = self._last
            while self._busy(before) and time.perf_counter_ns() - start < self._left_ns:
                before = self._shortest()  # not one of the probes: there would be busy ones only
            self._left_ns -= time.perf_counter_ns() - start
            start = time.perf_counter_ns()
            found = block()
            self.probe()
            if (disturbance := max(before, self._last)) < calmest:
                calmest, result = disturbance, found
            if not self._busy(calmest):
                return result
            self._left_ns -= time.perf_counter_ns() - start
            if self._left_ns <= 0:
                self.disturbed += 1
                return result
            self.repeated += 1

    def _busy(self, probe: float) -> bool:
        calm: float = self._probes[int(CALM_SHARE * len(self._probes))]
        if (usual := self._baseline_ns) is not None and calm > usual / SAME_STATE:
            calm = min(max(calm, usual / LIMIT), usual)
        return probe > LIMIT * calm
