"""CPU time as a multiple of the cost of a fixed piece of work on the same machine, so that a slow processor does not
fail a test."""

import functools
import time
from collections.abc import Callable


def cost(work: Callable[[], object]) -> float:
    """The CPU time of `work`, in yardsticks."""
    return seconds(work) / yardstick()


def seconds(work: Callable[[], object]) -> float:
    """The CPU seconds of `work` in this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


@functools.cache
def yardstick() -> float:
    """CPU seconds of a million steps of a loop in Python: some tens of milliseconds on a machine of 2020."""
    return min(seconds(_million_steps) for _ in range(3))


def _million_steps() -> None:
    total = 0
    for number in range(1_000_000):
        total += number & 3
