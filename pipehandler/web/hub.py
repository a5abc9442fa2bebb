"""Who waits for which inbox, and what wakes them: one connection that listens, for every stream of the process.

A stream costs a place here and its cursor; nothing is buffered for it. When something has arrived, one query finds the leases
that have new mail (`arrivals_after`), and their streams fetch their own rows. When a lease or a key was changed by anybody, the
keys of all streams are looked at again, in one query for many of them.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from pipehandler.store.errors import StoreError
from pipehandler.store.inbox_values import Inbox
from pipehandler.store.wakeups import ARRIVED, CHANGED, Wakeups

_log = logging.getLogger(__name__)

_ROWS = 1000  # arrivals that are fetched at once
_KEYS = 500  # that are looked at in one query

_POLL_LISTENING, _POLL_DEAF = 5.0, 1.0  # seconds between two queries where notifications arrive, and where none do
_SHORTEST, _LONGEST = 0.002, 0.1  # seconds, while an older transaction holds deliveries back
_BETWEEN_CHECKS = 0.25  # seconds, however often something changes
_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0  # seconds between two attempts to reach the database


class Source(Protocol):
    """What the hub asks of the database (store.inboxes.Inboxes)."""

    async def cursor_now(self) -> str:
        """The position after everything that is visible."""

    async def arrivals_after(self, cursor: str, max_rows: int) -> list[tuple[str, int | None]]:
        """The next arrivals after the cursor: their cursors and leases, in the order of the stream."""

    async def arrivals_waiting(self) -> bool:
        """Whether something is committed that an older transaction still holds back."""

    async def inboxes(self, keys: Sequence[bytes]) -> Mapping[bytes, Inbox]:
        """The inboxes that the keys open now, by the key; those that open none are left out."""


class Waiter:
    """One stream, or one waiting request.

    woken: set when there is something to look at. inbox: as it was looked at last; None once the key opens nothing.
    """

    __slots__ = ("arrived", "changed", "inbox", "key", "woken")

    def __init__(self, key: bytes, inbox: Inbox) -> None:
        self.key = key
        self.inbox: Inbox | None = inbox
        self.woken = asyncio.Event()
        self.arrived = False
        self.changed = False

    def wake(self, arrived: bool = False) -> None:
        """Have the stream look: for new mail, or at `inbox`."""
        self.arrived = self.arrived or arrived
        self.changed = self.changed or not arrived
        self.woken.set()


class Hub:
    """The waiters of this process. `run` serves them until `close`.

    up: whether the database answered the last query. wakes: how often a waiter was woken by mail.
    """

    def __init__(self, source: Source, wakeups: Wakeups) -> None:
        self._source = source
        self._wakeups = wakeups
        self._waiters: defaultdict[int | None, set[Waiter]] = defaultdict(set)
        self._unchecked = False
        self._checked = 0.0
        self.closing = False
        self.up = False
        self.wakes = 0

    @property
    def listening(self) -> bool:
        """Whether notifications arrive."""
        return self._wakeups.heard

    @contextmanager
    def waiting(self, key: bytes, inbox: Inbox) -> Iterator[Waiter]:
        """A waiter for the mail of `inbox`, for as long as the context lasts."""
        waiter, lease = Waiter(key, inbox), inbox.lease
        self._waiters[lease].add(waiter)
        try:
            yield waiter
        finally:
            self._waiters[lease].discard(waiter)
            if not self._waiters[lease]:
                del self._waiters[lease]

    def look_again(self) -> None:
        """Look at the keys of all waiters soon: mail was removed, which nothing notifies."""
        self._unchecked = True
        self._wakeups.interrupt()

    def close(self) -> None:
        """Have every stream end: the program stops."""
        self.closing = True
        self._wake_all()

    async def run(self) -> None:
        """Wake waiters until cancelled. After a loss of the database everyone looks again, so that nothing is missed."""
        retry, lost = _FIRST_RETRY, False
        while True:
            try:
                await self._wakeups.open()
                cursor = await self._source.cursor_now()
                self.up = True
                if lost:
                    _log.warning("the database is back")
                retry, lost = _FIRST_RETRY, False
                self._wake_all()
                self._unchecked = True
                await self._follow(cursor)
            except Exception as error:  # noqa: BLE001 # whatever it is, the streams need the next attempt
                if not lost:
                    fault = None if isinstance(error, StoreError) else error
                    _log.warning("the database is away: %s", error, exc_info=fault)
                self.up, lost = False, True
                await self._wakeups.close()
                await asyncio.sleep(random.uniform(0.5, 1) * retry)  # noqa: S311 # jitter needs no secrecy
                retry = min(2 * retry, _LAST_RETRY)

    async def _follow(self, cursor: str) -> None:
        """Wake the waiters of what arrives after the cursor. Raises StoreError."""
        pause = _SHORTEST
        while True:
            # Asked before the rows: what is held back now is either among them, or announced by the next answer.
            waiting = await self._source.arrivals_waiting()
            arrivals = await self._source.arrivals_after(cursor, _ROWS)
            if arrivals:
                cursor = arrivals[-1][0]
                self._wake({lease for _, lease in arrivals})
                if len(arrivals) == _ROWS:
                    continue
            if self._unchecked:
                await self._check()
            seconds = self._seconds(pause if waiting else None)
            noted = await self._wakeups.wait(seconds)
            pause = _SHORTEST if ARRIVED in noted or not waiting else min(2 * pause, _LONGEST)
            # Where no notification may have come, the poll looks at the keys as well.
            if CHANGED in noted or not self.listening:
                self._unchecked = True

    def _seconds(self, pause: float | None) -> float:
        seconds = _POLL_LISTENING if self.listening else _POLL_DEAF
        if self._unchecked:
            seconds = min(seconds, max(0.0, self._checked + _BETWEEN_CHECKS - time.monotonic()))
        return seconds if pause is None else min(seconds, pause)

    def _wake(self, leases: set[int | None]) -> None:
        """Wake the waiters of these leases, and those of a viewer's key to all mail, whose lease is None."""
        for lease in leases | {None}:
            for waiter in self._waiters.get(lease, ()):
                waiter.wake(arrived=True)
                self.wakes += 1

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake(arrived=True)

    async def _check(self) -> None:
        """Look at the keys of all waiters, and wake those whose inbox is another than before. Raises StoreError."""
        now = time.monotonic()
        if now < self._checked + _BETWEEN_CHECKS:
            return
        self._checked, self._unchecked = now, False
        waiters = [waiter for group in self._waiters.values() for waiter in group]
        keys = list({waiter.key for waiter in waiters})
        found: dict[bytes, Inbox] = {}
        for start in range(0, len(keys), _KEYS):
            found.update(await self._source.inboxes(keys[start : start + _KEYS]))
        for waiter in waiters:
            inbox = found.get(waiter.key)
            if _differs(waiter.inbox, inbox):
                waiter.inbox = inbox
                waiter.wake()


def _differs(before: Inbox | None, now: Inbox | None) -> bool:
    """Whether a stream has something to say: not that its cursor has moved."""
    if before is None or now is None:
        return before is not now
    return (before.expires_at, before.grace_until, before.state, before.deliveries) != (
        now.expires_at,
        now.grace_until,
        now.state,
        now.deliveries,
    )


async def cancelled(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
