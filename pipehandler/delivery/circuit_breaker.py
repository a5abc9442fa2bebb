"""The outage breaker: while the database is known to be down, deliveries leave at once instead of each finding it out.

Postfix does not slow a failing pipe, and most of what a delivery costs is importing. So a delivery that finds the
database down leaves a file in the state directory, and whoever comes in the next HOLD seconds is refused before anything
costly is imported. After that one at a time may try: the one that holds the lock; the others wait a moment for how it goes,
because Postfix would come back with them only after minutes. The first success removes the file. Without a state directory that can be written there is no breaker, and everything else is as always.
"""

import fcntl
import os
import time
from contextlib import suppress

HOLD = 2.0
"""Seconds after a failure in which nobody tries again."""

_MOMENT = 1.0
"""Seconds to wait for the one that tries."""


class CircuitBreaker:
    """The state of the database, as the deliveries on this host saw it last; a context manager around one delivery."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "outage")
        self._probe: int | None = None

    def __enter__(self) -> "CircuitBreaker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._probe is not None:
            with suppress(OSError):
                os.close(self._probe)
            self._probe = None

    @property
    def is_open(self) -> bool:
        """Whether a delivery has found the database down, and none has succeeded since; to look changes nothing."""
        return os.path.exists(self._path)

    def refuses(self) -> bool:
        """Whether this delivery should leave at once. False: go on, and tell `failed` or `succeeded` how it went."""
        try:
            age = time.time() - os.stat(self._path).st_mtime
            if 0 <= age < HOLD:
                return True
            # Not opened for creation: where the file is gone by now, the database is back.
            self._probe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            if not self._turn(self._probe):
                return True  # somebody else is still trying
            seen = os.fstat(self._probe)
        except OSError:
            return False
        if not seen.st_nlink:  # whoever held the lock before us has removed the file: nobody has to wait any more
            self.__exit__()
            return False
        return 0 <= time.time() - seen.st_mtime < HOLD  # or has failed a moment ago

    @staticmethod
    def _turn(file: int) -> bool:
        """Whether it is our turn to try."""
        until = time.monotonic() + _MOMENT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)
            else:
                return True

    def failed(self) -> None:
        """The database could not be used: keep others from trying for HOLD seconds."""
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.utime(file)
            finally:
                os.close(file)

    def succeeded(self) -> None:
        """The database was used: let everybody in again."""
        with suppress(OSError):
            os.unlink(self._path)
