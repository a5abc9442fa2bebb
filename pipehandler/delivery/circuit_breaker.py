"""The circuit breaker: while the database is known to be down, deliveries leave at once instead of each finding it out.

Postfix does not slow a failing pipe, and most of what a delivery costs is importing. So a delivery that finds the database
down leaves a file in the state directory: the breaker is open, and deliveries of the next HOLD seconds leave before anything
costly is imported. After that one delivery at a time probes the database: the one that holds the file's lock. The others
wait a moment for its result, because Postfix would come back with them only after minutes. The first success removes the
file. Without a state directory that can be written there is no breaker.
"""

import fcntl
import os
import time
from contextlib import suppress

from ..mail.outcome import OUTAGE, Undelivered, outcome_of

HOLD = 2.0
"""Seconds after a failure in which no delivery tries the database."""

_PROBE_SECONDS = 1.0
"""Seconds to wait for the delivery that probes."""


class CircuitBreaker:
    """The breaker of one mail host; a context manager around one delivery's use of the database.

    Entering raises Undelivered while the breaker is open. Leaving closes the breaker after a success, and opens it if the
    delivery ends in an error that any other message would have met, too (Result.outage).
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "outage")
        self._probe: int | None = None

    def __enter__(self) -> "CircuitBreaker":
        if self.refuses():
            self._release()
            raise Undelivered(OUTAGE, "the database is known to be down")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.reset()
        elif outcome_of(error).outage:
            self.trip()
        self._release()

    @property
    def is_open(self) -> bool:
        """Whether a delivery has found the database down, and none has succeeded since; reading it changes nothing."""
        return os.path.exists(self._path)

    def refuses(self) -> bool:
        """Whether this delivery must leave at once. If not, it may be the one that probes, and holds the lock until `__exit__`."""
        try:
            age = time.time() - os.stat(self._path).st_mtime
            if 0 <= age < HOLD:
                return True
            # Not opened for creation: where the file is gone by now, the database is back.
            self._probe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            if not self._lock(self._probe):
                return True  # another delivery is still probing
            state = os.fstat(self._probe)
        except OSError:
            return False
        if not state.st_nlink:  # the delivery that held the lock before has removed the file: the database is back
            self._release()
            return False
        return 0 <= time.time() - state.st_mtime < HOLD  # or it has failed a moment ago

    def trip(self) -> None:
        """Open the breaker: the database could not be used."""
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.utime(file)
            finally:
                os.close(file)

    def reset(self) -> None:
        """Close the breaker: the database was used."""
        with suppress(OSError):
            os.unlink(self._path)

    @staticmethod
    def _lock(file: int) -> bool:
        """Wait for the lock of the delivery that probes; False if it takes too long."""
        until = time.monotonic() + _PROBE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)
            else:
                return True

    def _release(self) -> None:
        if self._probe is not None:
            with suppress(OSError):
                os.close(self._probe)
            self._probe = None
