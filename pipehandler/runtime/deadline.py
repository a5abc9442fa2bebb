"""Time: one budget for the whole delivery, shorter ones inside it, and a last fence.

The budget is kept by SIGALRM (setitimer(2), ITIMER_REAL). While Python runs, the signal becomes TimeUp, an exception that is
no Exception, so that no library swallows it; the regular expression engine looks for it now and then. Should it be lost
all the same, the next alarm has the default action: death by signal, which pipe(8) defers. Code that runs on without
returning to Python is ended by the limit on CPU time (ingress/pipe.py).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..mail.outcome import DEADLINE, Result

GRACE = 3.0
"""Seconds between TimeUp and death by signal."""


class TimeUp(BaseException):
    """The time is over: that of the delivery, or that of a step inside `Deadline.step`."""

    result = Result(DEADLINE, reason="limits.deadline was reached before the message was stored")


class Deadline:
    """The time budget of one delivery, in seconds from `started` (time.monotonic)."""

    def __init__(self, seconds: float, started: float) -> None:
        self.ends = started + seconds
        self.arm()

    def remaining(self) -> float:
        """Seconds left; not negative."""
        return max(0.0, self.ends - time.monotonic())

    def arm(self) -> None:
        """Let TimeUp be raised when the budget is used up."""
        _alarm(self.remaining())

    @contextmanager
    def step(self, seconds: float) -> Iterator[None]:
        """A step that may take `seconds` at the most, and no longer than the budget; TimeUp is raised inside it."""
        _alarm(min(seconds, self.remaining()))
        try:
            yield
        finally:
            # With nothing left, the alarm of the step is that of the budget: pending, or TimeUp already.
            if self.remaining():
                self.arm()

    def disarm(self) -> None:
        """After the commit point nothing is interrupted any more; only death by signal remains, GRACE seconds away."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.remaining() + GRACE)


def clear() -> None:
    """The delivery is over and its process goes on: no alarm is left."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _alarm(seconds: float) -> None:
    signal.signal(signal.SIGALRM, _time_up)
    # A timer of 0 would be no timer.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


def _time_up(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, GRACE)
    raise TimeUp
