"""Blocks that are timed between probes: on a machine of which it is known when it is busy."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from latency import calm
from latency.calm import CalmBlocks

CALM_NS, BUSY_NS = 300_000, 480_000
BLOCK_NS = 100_000_000
Spell = tuple[float, float]


class Machine:
    """Its clock moves only while something runs, slower in its busy spells (ms)."""

    def __init__(self, *busy: Spell, busy_ns: int = BUSY_NS) -> None:
        self.busy = busy
        self.busy_ns = busy_ns
        self.now_ns = 0
        self.runs = 0

    def is_busy(self) -> bool:
        return any(start <= self.now_ns / 1e6 < end for start, end in self.busy)

    def run(self) -> int:
        took = self.busy_ns if self.is_busy() else CALM_NS
        self.now_ns += took
        self.runs += 1
        return took

    def block(self) -> Spell:
        """Begin and end of a block, ms."""
        start = self.now_ns
        self.now_ns += BLOCK_NS
        return start / 1e6, self.now_ns / 1e6


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Machine]:
    """Lets `latency.calm` read the clock of a machine."""

    def use(machine: Machine) -> Machine:
        clock = SimpleNamespace(perf_counter_ns=lambda: machine.now_ns)
        monkeypatch.setattr(calm, "time", clock)
        return machine

    return use


def blocks(machine: Machine, gate: CalmBlocks, count: int) -> list[Spell]:
    """Blocks after a first look at the machine."""
    gate.probe()
    return [gate.timed(machine.block) for _ in range(count)]


def test_a_calm_machine_times_every_block_once(on: Callable[[Machine], Machine]) -> None:
    machine = on(Machine())
    gate = CalmBlocks(machine.run, patience_s=1.0)
    found = blocks(machine, gate, 20)
    assert len(set(found)) == 20
    assert (gate.repeated, gate.disturbed) == (0, 0)
    assert machine.now_ns < 1.1 * 20 * BLOCK_NS  # what the probes cost


@pytest.mark.parametrize("baseline_ns", [None, CALM_NS, BUSY_NS])  # the last of a busy day
@pytest.mark.parametrize("spell", [(230.0, 480.0), (150.0, 320.0), (95.0, 1000.0)])
def test_what_a_spell_disturbed_is_timed_again_after_it(
    on: Callable[[Machine], Machine], spell: Spell, baseline_ns: int | None
) -> None:
    machine = on(Machine(spell))
    gate = CalmBlocks(machine.run, patience_s=2.0, baseline_ns=baseline_ns)
    found = blocks(machine, gate, 8)
    assert all(end <= spell[0] or start >= spell[1] for start, end in found)
    assert gate.repeated == 1
    assert gate.disturbed == 0


def test_a_machine_that_stays_busy_costs_no_more_than_patience(
    on: Callable[[Machine], Machine],
) -> None:
    machine = on(Machine((250.0, 1e9)))
    gate = CalmBlocks(machine.run, patience_s=0.6)
    found = blocks(machine, gate, 10)
    assert len(found) == 10
    assert gate.disturbed == 8
    assert machine.now_ns < 1.1 * (10 * BLOCK_NS + 0.6e9) + BLOCK_NS


def test_the_baseline_tells_of_a_session_that_begins_on_a_busy_machine(
    on: Callable[[Machine], Machine],
) -> None:
    machine = on(Machine((0.0, 400.0)))
    blind = CalmBlocks(machine.run, patience_s=1.0)
    assert blocks(machine, blind, 1)[0][0] < 400  # no other state was seen yet
    machine = on(Machine((0.0, 400.0)))
    told = CalmBlocks(machine.run, patience_s=1.0, baseline_ns=CALM_NS)
    assert blocks(machine, told, 1)[0][0] >= 400
    assert told.repeated == 0


def test_a_boosted_clock_does_not_pass_for_the_calm_one(
    on: Callable[[Machine], Machine],
) -> None:
    usual_ns = int(1.09 * CALM_NS)
    # Boosted while it warmed up, at its usual speed since
    machine = on(Machine((30.0, 1e9), busy_ns=usual_ns))
    gate = CalmBlocks(machine.run, patience_s=1.0, baseline_ns=usual_ns)
    for _ in range(4):
        gate.probe()
    assert machine.now_ns < 30e6
    assert not machine.is_busy()
    blocks(machine, gate, 10)
    assert gate.repeated <= 1
    assert gate.disturbed == 0


def test_without_patience_nothing_is_probed(on: Callable[[Machine], Machine]) -> None:
    machine = on(Machine((50.0, 150.0)))
    gate = CalmBlocks(machine.run, patience_s=0.0)
    assert blocks(machine, gate, 2) == [(0, 100), (100, 200)]
    assert machine.runs == 0
