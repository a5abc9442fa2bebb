"""Which message of a Maildir is next: a value without I/O. Times are those of time.monotonic.

Trouble with one message must not hold up the others, and trouble that every message would meet must not cost an attempt
for each of them. So a message that failed waits for a time of its own, which doubles; and while deliveries fail, only one
at a time is tried, after a pause that doubles, too.
"""

from collections.abc import Collection, Iterable

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
"""Seconds without an attempt after failures in a row."""

FIRST_WAIT = 1.0
LONGEST_WAIT = 600.0
"""Seconds until the next attempt at one message."""

GROWING_WAIT = 0.5
"""Seconds until another look at a file that may be growing."""

Key = tuple[int, str]
"""A Maildir by its number, and the name of a file in it."""


class Queue:
    """The messages that are known, from the first sight of their names to the end of their files."""

    def __init__(self) -> None:
        self._ready: dict[Key, None] = {}  # in the order in which they are tried
        self._waiting: dict[Key, float] = {}
        self._under_way: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._in_a_row = 0
        self._paused_until = 0.0

    def __len__(self) -> int:
        """Return the number of messages that wait or are under way."""
        return len(self._ready) + len(self._waiting) + len(self._under_way)

    def add(self, keys: Iterable[Key]) -> None:
        """Add messages that were seen; those that are known keep their place."""
        for key in keys:
            if key not in self._waiting and key not in self._under_way:
                self._ready.setdefault(key)

    def forget_missing(self, folder: int, names: Collection[str]) -> None:
        """Forget the messages of a Maildir whose files are gone; `names` are those that it has."""
        for known in (self._ready, self._waiting, self._failures):
            for key in [key for key in known if key[0] == folder and key[1] not in names]:
                if key not in self._under_way:
                    del known[key]

    def next(self, now: float) -> Key | None:
        """Take the next message; None if there is none now."""
        for due in [key for key, then in self._waiting.items() if then <= now]:
            del self._waiting[due]
            self._ready.setdefault(due)
        if now < self._paused_until or (self._in_a_row and self._under_way):
            return None
        key = next(iter(self._ready), None)
        if key is not None:
            del self._ready[key]
            self._under_way.add(key)
        return key

    def put_back(self, key: Key) -> None:
        """Put a message back that could not be started; it stays the first."""
        self._under_way.discard(key)
        self._ready = {key: None, **self._ready}

    def done(self, key: Key, worked: bool = True) -> None:
        """Note that a message is finished. worked: by a delivery, which shows that others can succeed."""
        self._under_way.discard(key)
        self._failures.pop(key, None)
        if worked:
            self._in_a_row, self._paused_until = 0, 0.0

    def look_later(self, key: Key, now: float) -> None:
        """Note that a file may be growing, or that it was changed."""
        self._under_way.discard(key)
        self._waiting[key] = now + GROWING_WAIT

    def failed(self, key: Key, now: float) -> None:
        """Note that a message was not stored, whatever the reason."""
        self._under_way.discard(key)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._waiting[key] = now + min(FIRST_WAIT * 2 ** min(failures - 1, 20), LONGEST_WAIT)
        self._paused_until = now + min(FIRST_PAUSE * 2 ** min(self._in_a_row, 20), LONGEST_PAUSE)
        self._in_a_row += 1

    def due(self) -> float:
        """Return when `next` may have a message that it does not have now; infinity if only an event can change that."""
        if self._in_a_row and self._under_way:
            return float("inf")
        first = min(self._waiting.values(), default=float("inf"))
        if self._ready:
            first = 0.0
        return max(first, self._paused_until)
