"""The time budget of a delivery, shorter budgets for its steps, and a final kill.

SIGALRM enforces the budget (setitimer(2), ITIMER_REAL). The signal handler raises TimeUp, which derives from
BaseException so that no library's `except Exception` swallows it; the regular expression engine checks for signals too.
If TimeUp is lost all the same, the next SIGALRM has its default action: it kills the process, and pipe(8) defers the
message. Code that never returns to the interpreter is killed by the limit on CPU time (runtime/limits.py).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..mail.outcome import DEADLINE, Result

GRACE = 3.0
"""Seconds between TimeUp and the SIGALRM that kills the process."""

AFTERWARDS = 2.0
"""Seconds for the work that follows once the status of a delivery is known."""


class TimeUp(BaseException):
    """The time budget is used up: that of the delivery, or that of a step inside `Deadline.step`."""

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
        """Raise TimeUp when the budget is used up."""
        _alarm(self.remaining())

    @contextmanager
    def step(self, seconds: float) -> Iterator[None]:
        """Limit a step to `seconds`, and to the rest of the budget; TimeUp is raised inside it."""
        _alarm(min(seconds, self.remaining()))
        try:
            yield
        finally:
            # If nothing remains, the step's alarm was the budget's: it is pending, or has already raised TimeUp.
            if self.remaining():
                self.arm()

    def disarm(self) -> None:
        """Stop raising TimeUp, as after the commit. SIGALRM kills the process GRACE seconds after the budget's end."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.remaining() + GRACE)


@contextmanager
def afterwards() -> Iterator[None]:
    """Limit the work after a delivery, in a process that goes on: raise TimeUp after AFTERWARDS, and leave no alarm."""
    _alarm(AFTERWARDS)
    try:
        yield
    finally:
        clear()


def clear() -> None:
    """Cancel the timer and reset SIGALRM, in a process that goes on after the delivery."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _alarm(seconds: float) -> None:
    signal.signal(signal.SIGALRM, _time_up)
    # setitimer(2): 0 would cancel the timer.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


def _time_up(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, GRACE)
    raise TimeUp
