"""Large messages take turns, so that one client cannot take all the memory of a mail host.

A large message may take limits.memory and many seconds of processor time, and pipe(8) starts as many deliveries at once as
maxproc in master.cf says. So as many large messages as the host has processors, at least two, are delivered cold at a time;
the others wait, before they are read if Postfix passes their size. Small ones never wait for them.

A turn is a lock on one octet of the file `large` in the state directory (fcntl(2), POSIX locks). It ends with the process,
however that ends. Without a state directory that can be written there are no turns. Resident workers take none: there are few
of them, and their supervisor gives large messages no more than half of them (workers/supervisor.py).
"""

import fcntl
import os
import time

from ..mail.outcome import CONGESTED, Undelivered
from ..runtime.deadline import Deadline
from ..settings.config import Config

LARGE = 4_194_304
"""Octets from which a message is large. What is smaller takes about as much memory as the interpreter itself."""

AT_ONCE = max(2, len(os.sched_getaffinity(0)))
"""Large messages that are delivered cold at the same time."""

_PAUSE = 0.05  # seconds


class Turn:
    """The turn of one cold delivery, which takes it if its message is large."""

    def __init__(self, config: Config, deadline: Deadline) -> None:
        self._path = os.path.join(config.state.directory, "large")
        self._deadline = deadline
        self._needed = config.limits.deadline / 2  # seconds, to deliver the message
        self._file: int | None = None

    def take(self, octets: int) -> None:
        """Wait for the turn of a message of so many octets, unless it is small or has its turn. Raises Undelivered (CONGESTED)
        when half of the deadline is used up: the message comes again."""
        if octets < LARGE or self._file is not None:
            return
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            while not any(_lock(self._file, place) for place in range(AT_ONCE)):
                if self._deadline.remaining() < self._needed:
                    raise Undelivered(
                        CONGESTED, f"{AT_ONCE} other messages of {LARGE} octets and more were in delivery"
                    )
                time.sleep(_PAUSE)
        except OSError:
            return  # no state directory that can be written, or no locks in it


def _lock(file: int, place: int) -> bool:
    """Lock one octet of a file; False if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # lockf(3): either
        return False
    return True
