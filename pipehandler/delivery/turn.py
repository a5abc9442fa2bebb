"""Large messages take turns, so that one client cannot take all the memory of a mail host.

A large message may take limits.memory and many seconds of CPU time, and pipe(8) runs up to maxproc (master.cf)
deliveries at once. So at most as many large messages as the host has processors, but at least two, are delivered cold
at a time. The others wait: if Postfix passes their size before they are read, else when LARGE octets are read. Small
messages never wait.

A turn is a lock on one octet of the file `large` in the state directory (fcntl(2), POSIX locks). It ends with the
process, however that ends. If the state directory cannot be written, there are no turns. Resident workers take none:
there are few of them, and their supervisor assigns at most half of them to large messages (workers/supervisor.py).
"""

import fcntl
import os
import time

from ..mail.outcome import CONGESTED, Undelivered
from ..runtime.deadline import Deadline
from ..settings.config import Config

LARGE = 4_194_304
"""The size in octets from which a message is large. Smaller ones take about as much memory as the interpreter."""

AT_ONCE = max(2, len(os.sched_getaffinity(0)))
"""The number of large messages that may be delivered cold at the same time."""

_PAUSE = 0.05  # seconds


class Turn:
    """The turn of one cold delivery. Only a large message takes it."""

    def __init__(self, config: Config, deadline: Deadline) -> None:
        self._path = os.path.join(config.state.directory, "large")
        self._deadline = deadline
        self._needed = config.limits.deadline / 2  # seconds that must remain to deliver the message
        self._file: int | None = None

    def take(self, octets: int) -> None:
        """Wait for the turn of a message of this many octets, unless it is small or has its turn already.

        Raises Undelivered (CONGESTED) when half of the deadline is used up: Postfix retries the message later.
        """
        if octets < LARGE or self._file is not None:
            return
        try:
            self._file = file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            while not any(_lock(file, place) for place in range(AT_ONCE)):
                if self._deadline.remaining() < self._needed:
                    raise Undelivered(
                        CONGESTED, f"{AT_ONCE} other messages of {LARGE} octets and more were in delivery"
                    )
                time.sleep(_PAUSE)
        except OSError:
            return  # the state directory cannot be written, or has no locks


def _lock(file: int, place: int) -> bool:
    """Lock one octet of `file`; return False if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # lockf(3): either
        return False
    return True
