"""Interruptions that wait for the end of a step."""

import os
import signal
import threading

import pytest

from nas.interruption import SIGNALS, deferred


def work(signals, done):
    """Steps that are interrupted by each of `signals` in turn."""
    with deferred() as interrupted:
        assert not interrupted()
        for number in signals:
            os.kill(os.getpid(), number)
            assert interrupted()
            done.append("step")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_waits_and_the_second_does_not(number):
    before = [signal.getsignal(number) for number in SIGNALS]
    done = []
    work([], done)
    with pytest.raises(KeyboardInterrupt):
        work([number], done)
    assert done == ["step"]
    with pytest.raises(KeyboardInterrupt):
        work([number, number], done)
    assert done == ["step", "step"]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_are_told_of_no_signals():
    told = []

    def elsewhere():
        with deferred() as interrupted:
            told.append(interrupted())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told == [False]
