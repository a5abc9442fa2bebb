"""The seconds of each phase."""

import time

import pytest

from pipehandler.runtime.stopwatch import PHASES, Stopwatch


def test_phases_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase has its time, a phase entered again continues, and stopping twice has no further effect."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stopwatch = Stopwatch(99.0)
    for phase, seconds in (("read", 2.0), ("parse", 3.0), ("read", 4.0), ("store", 5.0)):
        stopwatch.enter(phase)
        now += seconds
    stopwatch.stop()
    now += 10.0
    stopwatch.stop()
    assert stopwatch.seconds == dict(zip(PHASES, (1.0, 6.0, 3.0, 5.0), strict=True))
