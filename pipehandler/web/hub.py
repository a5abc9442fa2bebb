"""Who waits for which inbox of a database, and what wakes them: one connection that listens, for all of its streams.

A stream costs a place here and its cursor; nothing is buffered for it. When something has arrived, one query finds the leases
that have new mail (`arrivals_after`), and their streams fetch their own rows. When a lease or a key was changed by anybody, the
keys of all streams are looked at again, in one query for many of them.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.inbox_errors import KeyRefused
from pipehandler.store.inbox_values import Inbox
from pipehandler.store.wakeups import ARRIVED, CHANGED, Wakeups

_log = logging.getLogger(__name__)

_ROWS = 1000  # arrivals that are fetched at once
_KEYS = 500  # that are looked at in one query

_POLL_LISTENING, _POLL_DEAF = 5.0, 1.0  # seconds between two queries where notifications arrive, and where none do
_SHORTEST, _LONGEST = 0.002, 0.1  # seconds, while an older transaction holds deliveries back
_BETWEEN_CHECKS = 0.25  # seconds, however often something changes
_LATEST_CHECK = 60.0  # seconds, though nothing was notified: none is while the queue of notifications is full
_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0  # seconds between two attempts to reach the database
_AWAY = 1.0  # seconds without the database, after which visitors are not kept waiting for it


class Found(NamedTuple):
    """What keys open. away: why it is not known of others: the database of their inbox does not answer."""

    inboxes: Mapping[bytes, Inbox]
    away: Mapping[bytes, StoreError]

    def of(self, key: bytes) -> Inbox:
        """What a key opens. Raises KeyRefused, StoreError."""
        if key in self.inboxes:
            return self.inboxes[key]
        if key in self.away:
            raise self.away[key]
        raise KeyRefused(STORE_UNAVAILABLE, "this key opens no inbox", INSUFFICIENT_PRIVILEGE)


LookUp = Callable[[Sequence[bytes]], Awaitable[Found]]
"""What keys open now."""


class Source(Protocol):
    """What the hub asks of the database (store.inboxes.Inboxes)."""

    async def cursor_now(self) -> str:
        """The position after everything that is visible."""

    async def arrivals_after(self, cursor: str, max_rows: int) -> list[tuple[str, int | None]]:
        """The next arrivals after the cursor: their cursors and leases, in the order of the stream."""

    async def arrivals_waiting(self) -> bool:
        """Whether something is committed that an older transaction still holds back."""


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
    """The waiters for the mail of one database. `run` serves them.

    look_up: asks about their keys. name: of the database. announced: whether what its wakeups do not hear of new mail is noted
    there. up: whether the database answered the last query. wakes: how often a waiter was woken by mail.
    """

    def __init__(
        self,
        source: Source,
        wakeups: Wakeups,
        look_up: LookUp,
        name: str = "the database",
        announced: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source = source
        self._wakeups = wakeups
        self._look_up = look_up
        self._announced = announced
        self.name = name
        self._waiters: defaultdict[int | None, set[Waiter]] = defaultdict(set)
        self._unchecked = False
        self._checked = 0.0
        self._lost: float | None = None
        self._silent = False
        self.up = False
        self.wakes = 0

    @property
    def listening(self) -> bool:
        """Whether notifications arrive."""
        return self._wakeups.heard and self._announced()

    @property
    def away(self) -> bool:
        """Whether the database has not answered for a while. One that refuses, such as a further connection, may still answer."""
        return self._silent and self._lost is not None and time.monotonic() > self._lost + _AWAY

    @contextmanager
    def waiting(self, waiter: Waiter, lease: int | None) -> Iterator[None]:
        """Wake a waiter for the mail of a lease, or of all, for as long as the context lasts."""
        self._waiters[lease].add(waiter)
        try:
            yield
        finally:
            self._waiters[lease].discard(waiter)
            if not self._waiters[lease]:
                del self._waiters[lease]

    def look_again(self) -> None:
        """Look at the keys of all waiters soon: mail was removed, which nothing notifies."""
        self._unchecked = True
        self._wakeups.interrupt()

    async def run(self) -> None:
        """Wake waiters until cancelled. After a loss of the database everyone looks again, so that nothing is missed."""
        retry = _FIRST_RETRY
        while True:
            try:
                await self._wakeups.open()
                cursor = await self._source.cursor_now()
                self.up = True
                if self._lost is not None:
                    _log.warning("%s is back", self.name)
                retry, self._lost = _FIRST_RETRY, None
                self.wake_all()
                self._unchecked = True
                await self._follow(cursor)
            except Exception as error:  # noqa: BLE001 # whatever it is, the streams need the next attempt
                self.up, self._silent = False, isinstance(error, StoreError) and not error.sqlstate
                if self._lost is None:
                    self._lost = time.monotonic()
                    fault = None if isinstance(error, StoreError) else error
                    _log.warning("%s is away: %s", self.name, error, exc_info=fault)
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
            if CHANGED in noted or not self.listening or time.monotonic() > self._checked + _LATEST_CHECK:
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

    def wake_all(self) -> None:
        """Have every stream look."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake(arrived=True)

    async def _check(self) -> None:
        """Look at the keys of all waiters, and wake those whose inbox is another than before."""
        now = time.monotonic()
        if now < self._checked + _BETWEEN_CHECKS:
            return
        self._checked, self._unchecked = now, False
        waiters = [waiter for group in self._waiters.values() for waiter in group]
        keys = list({waiter.key for waiter in waiters})
        found: dict[bytes, Inbox] = {}
        for start in range(0, len(keys), _KEYS):
            inboxes, away = await self._look_up(keys[start : start + _KEYS])
            found.update(inboxes)
            if away:
                self._unchecked = True
                waiters = [waiter for waiter in waiters if waiter.key not in away]
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
