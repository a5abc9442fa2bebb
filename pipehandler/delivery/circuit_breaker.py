"""The circuit breaker: while the database is known to be down, deliveries end at once without trying it.

Postfix does not slow down a failing pipe, and most of the cost of a delivery is imports. So a delivery that finds the
database down leaves a file in the state directory: the breaker is open, and for the next HOLD seconds deliveries end
before anything costly is imported. After that one delivery at a time probes the database: the one that holds the file's
lock. The others wait briefly for its result, because Postfix would retry them only after minutes. The first success
removes the file. If the state directory cannot be written, there is no breaker.

Where the database is the proxy of several shards, each shard has a breaker as well, inside of that of the proxy: mail for
the others goes on, and no more than one delivery at a time waits for a shard that does not answer. Which shard that is, a
delivery asks only while the breaker of one is open.

The file's times are wall-clock times, which may jump: mtime is the last failure, atime the start of the probe. A time
in the future is ignored, so a jump in either direction can only end a pause early. A delivery that has been probing for
longer than _PROBE_LIMIT may hang and never release the lock, so the file is replaced by a new one.
"""

import fcntl
import os
import time
from contextlib import suppress

from ..mail.outcome import OUTAGE, Undelivered, outcome_of

HOLD = 2.0
"""Seconds after a failure during which no delivery tries the database."""

_SHARDS = "outages"
"""The folder with a file for each shard, named after its number; it is made when the first is needed."""

_PROBE_SECONDS = 1.0
"""Seconds to wait for the result of another delivery's probe."""

_PROBE_LIMIT = 3.0
"""Seconds after which a probe is assumed to hang, and another delivery probes."""


class CircuitBreaker:
    """The breaker of one mail host, or of a shard there; a context manager around one delivery's use of the database.

    Entering raises Undelivered while the breaker is open. Leaving closes the breaker after a success, and opens it if
    the delivery ends in an error that any other message would have met (Result.outage).
    """

    def __init__(self, directory: str, shard: int | None = None) -> None:
        self._path = os.path.join(directory, *(["outage"] if shard is None else [_SHARDS, str(shard)]))
        self._shard = shard
        self._what = "the database" if shard is None else f"shard {shard}"
        self._probe: int | None = None

    def check(self) -> None:
        """Raise Undelivered where entering would do so at once. Has no side effect, so a message need not be read for it."""
        if self._is_held():
            raise self._refusal()

    def __enter__(self) -> "CircuitBreaker":
        if self.refuses():
            self._release()
            raise self._refusal()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.reset()
        elif outcome_of(error).outage:
            self.trip()
        self._release()

    @property
    def is_open(self) -> bool:
        """Whether a delivery has found the database down and none has succeeded since. Has no side effect."""
        return os.path.exists(self._path)

    def refuses(self) -> bool:
        """Return whether this delivery must end at once.

        If not, it may be the one that probes, which then holds the lock until `__exit__`.
        """
        if self._is_held():
            return True
        try:
            # Without O_CREAT: if the file is gone by now, the database is back.
            self._probe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            locked = self._lock(self._probe)
            state = os.fstat(self._probe)
            if not locked and _is_recent(state.st_atime, _PROBE_LIMIT):
                return True  # another delivery is still probing
            if not state.st_nlink:  # the probe removed the file: the database is back
                self._release()
                return False
            if _is_recent(state.st_mtime, HOLD):
                return True  # the probe has just failed
            if not locked:
                self._replace()
            os.utime(self._probe, (time.time(), state.st_mtime))
        except OSError:
            return False
        return False

    def _is_held(self) -> bool:
        """Whether a delivery has failed within the last HOLD seconds."""
        try:
            return _is_recent(os.stat(self._path).st_mtime, HOLD)
        except OSError:
            return False

    def _refusal(self) -> Undelivered:
        return Undelivered(OUTAGE, f"{self._what} is known to be down")

    def trip(self) -> None:
        """Open the breaker: the database could not be used."""
        with suppress(OSError):
            if self._shard is not None:
                with suppress(FileExistsError):
                    os.mkdir(os.path.dirname(self._path), 0o700)
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
        """Wait for the lock of the probing delivery; return False if that takes too long."""
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

    def _replace(self) -> None:
        """Replace the file whose lock is not released by a new one that this delivery has locked."""
        self._release()
        other = f"{self._path}.{os.getpid()}"
        self._probe = os.open(other, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(other, self._path)

    def _release(self) -> None:
        if self._probe is not None:
            with suppress(OSError):
                os.close(self._probe)
            self._probe = None


def open_shards(directory: str) -> list[int]:
    """The shards whose breaker is open: a delivery has found them away, and none has succeeded there since."""
    try:
        names = os.listdir(os.path.join(directory, _SHARDS))
    except OSError:  # most databases are not the proxy of shards
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def _is_recent(then: float, seconds: float) -> bool:
    """Whether `then` was less than `seconds` ago. A time in the future is not: the clock was set back since."""
    return 0 <= time.time() - then < seconds
