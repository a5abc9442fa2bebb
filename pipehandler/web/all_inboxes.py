"""The inboxes of all databases of the page, for its pages: each question goes to the database that has the answer.

A visitor's inbox is on one. A viewer's key to all mail, or to a catch-all, is on every shard, and what they answer is merged
(merged.py). What a page asks of one inbox that it knows to be its owner's, it asks of `home`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import (
    NAME_REFUSED,
    NO_DATA_FOUND,
    QUERY_CANCELED,
    RAISE_EXCEPTION,
    NotConnected,
    StoreError,
)
from pipehandler.store.inbox_errors import (
    BadCursor,
    InboxError,
    KeyRefused,
    NameRefused,
    NoSuchMail,
    SearchTooSlow,
    TooManyInboxes,
)
from pipehandler.store.inbox_values import Inbox, InboxMessage, InboxPage, InboxRow
from pipehandler.store.inboxes import Inboxes

from .databases import Database, Databases
from .hub import Found, Waiter
from .merged import AWAY, is_joined, joined, merged_inbox, merged_page, merged_rows, parted

_T = TypeVar("_T")

_PATIENCE = 3.0
"""Seconds for which shards wait for one of them, whose server may be frozen, and a search for others before it."""


class AllInboxes:
    """What the pages ask. Methods that Inboxes has as well mean the same, and raise the same."""

    def __init__(self, conninfo: str, connections: int) -> None:
        self.databases = Databases(conninfo, connections, self.inboxes)
        self._asking: set[asyncio.Task[Any]] = set()

    def home(self, key: bytes) -> Inboxes:
        """The database of an owner's key. Raises KeyRefused, and NotConnected while it is away."""
        return self.databases.home(key).inboxes

    async def open(
        self, domain: str, name: str | None, ttl: timedelta, client: str | None = None
    ) -> tuple[bytes, Inbox]:
        """Open an inbox; returns its new key. A random name comes from a database that answers and has room."""
        databases = self.databases.reached()
        if name is not None and self.databases.count > 1:
            answers, failures = await self._asked(databases, lambda database: database.inboxes.shard_of(name, domain))
            if not answers:
                raise next(iter(failures.values()))
            number = next(iter(answers.values()))
            if number not in self.databases.all:
                raise NameRefused(STORE_UNAVAILABLE, "the mail of this name goes to another shard", NAME_REFUSED)
            databases = [self.databases.all[number]]
        failure: StoreError | None = None
        for database in databases:
            key = self.databases.new_key(database)
            try:
                return key, await database.inboxes.open(key, domain, name, ttl, client=client)
            except (NotConnected, TooManyInboxes) as error:
                failure = error
        assert failure  # noqa: S101 # there is a database
        raise failure

    async def share(self, key: bytes, ttl: timedelta | None = None) -> bytes:
        """Return a new key that reads an inbox. Raises what Inboxes.share raises."""
        database = self.databases.home(key)
        new = self.databases.new_key(database)
        await database.inboxes.share(key, new, ttl)
        return new

    async def inbox(self, key: bytes, in_turn: bool = False) -> Inbox:
        """What the key opens. in_turn: for a stream."""
        if not in_turn:
            return (await self.inboxes([key])).of(key)
        async with self.databases.home(key).turns:
            return (await self.inboxes([key])).of(key)

    async def inboxes(self, keys: Sequence[bytes]) -> Found:
        """What the keys open, as far as the databases answer. Raises StoreError until these are known."""
        databases = self.databases
        known = databases.known()
        by_home: dict[int, list[bytes]] = defaultdict(list)
        for key in keys:
            by_home[databases.number(key)].append(key)
        homes = [database for database in known if database.number in by_home]
        answers, failures = await self._asked(
            homes, lambda database: database.inboxes.inboxes(by_home[database.number])
        )
        found = {key: inbox for answer in answers.values() for key, inbox in answer.items()}
        away = {key: error for number, error in failures.items() for key in by_home[number]}
        if databases.count > 1:
            elsewhere = [key for number in by_home if number not in databases.all for key in by_home[number]]
            shared = [key for key, inbox in found.items() if inbox.of_all_shards] + list(away) + elsewhere
            if shared:
                others = [database for database in known if database.number not in failures]
                await self._look_everywhere(shared, others, found, away)
        return Found(found, away)

    async def _look_everywhere(
        self,
        keys: Sequence[bytes],
        databases: Sequence[Database],
        found: dict[bytes, Inbox],
        away: dict[bytes, StoreError],
    ) -> None:
        """Replace what is found of keys that are, or may be, on every shard. databases: those that may answer."""
        answers, _ = await self._asked(databases, lambda database: database.inboxes.inboxes(keys))
        for key in keys:
            parts = {number: answer[key] for number, answer in answers.items() if key in answer}
            if len(parts) < len(answers):  # revoked, or of one shard
                found.pop(key, None)
                if parts:
                    away.pop(key, None)
            elif parts:
                found[key] = merged_inbox(parts, self.databases.all)
                away.pop(key, None)

    # Mail.

    def is_merged(self, inbox: Inbox) -> bool:
        """Whether its mail is on several shards."""
        return self.databases.count > 1 and inbox.of_all_shards

    async def page(
        self, key: bytes, inbox: Inbox, before: str | None = None, max_rows: int = 50, wanted: str | None = None
    ) -> InboxPage:
        """A page of the list of `inbox`, which the key opens."""
        if not self.is_merged(inbox):
            return await _page(self.databases.home(key), key, before, max_rows, wanted)
        known = self.databases.known()
        positions = parted(before or joined(dict.fromkeys(self.databases.all, "")), self.databases.all)
        pages, failures = await self._asked(
            known, lambda database: _page(database, key, positions[database.number], max_rows, wanted)
        )
        if not pages:
            raise next(iter(failures.values()))
        return merged_page(positions, pages, max_rows)

    async def after(self, key: bytes, cursor: str, max_rows: int = 100) -> list[InboxRow]:
        """The rows after a cursor, in turn with other streams. BadCursor also says that a shard is back of which a page had nothing."""
        known = self.databases.known()
        if self.databases.count > 1 and not cursor and self.is_merged(await self.inbox(key)):
            cursor = joined(dict.fromkeys(self.databases.all, ""))
        if not is_joined(cursor):
            return await _after(self.databases.home(key), key, cursor, max_rows)
        positions = parted(cursor, self.databases.all)
        asked = [database for database in known if positions[database.number] != AWAY]
        if any(database.hub.up for database in known if database not in asked):
            raise BadCursor(STORE_UNAVAILABLE, "a shard is back of which nothing was shown", RAISE_EXCEPTION)
        found, failures = await self._asked(
            asked, lambda database: _after(database, key, positions[database.number], max_rows)
        )
        if failures and not found:
            raise next(iter(failures.values()))
        return merged_rows(positions, found, max_rows)

    async def message(self, key: bytes, delivery: int) -> InboxMessage:
        """One delivery with its message."""
        database = self.databases.of_delivery(delivery)
        try:
            return await database.inboxes.message(key, delivery)
        except KeyRefused as error:
            if database.number == self.databases.number(key):
                raise
            raise NoSuchMail(error.outcome, f"there is no delivery {delivery} in this inbox", NO_DATA_FOUND) from error

    async def attachment(self, key: bytes, delivery: int, ordinal: int) -> AsyncIterator[bytes]:
        """The content of an attachment, in pieces."""
        async for piece in self.databases.of_delivery(delivery).inboxes.attachment(key, delivery, ordinal):
            yield piece

    async def small_attachments(self, key: bytes, delivery: int, ordinals: Sequence[int]) -> Mapping[int, bytes]:
        """The content of several attachments, which have at most PIECE octets together."""
        return await self.databases.of_delivery(delivery).inboxes.small_attachments(key, delivery, ordinals)

    async def raw(self, key: bytes, delivery: int) -> AsyncIterator[bytes]:
        """The bytes of a delivery, in pieces."""
        async for piece in self.databases.of_delivery(delivery).inboxes.raw(key, delivery):
            yield piece

    @contextmanager
    def waiting(self, key: bytes, inbox: Inbox) -> Iterator[Waiter]:
        """A waiter for the mail of `inbox`, for as long as the context lasts."""
        waiter = Waiter(key, inbox)
        with ExitStack() as stack:
            for database in self.databases.known() if self.is_merged(inbox) else [self.databases.home(key)]:
                stack.enter_context(database.hub.waiting(waiter, inbox.lease))
            yield waiter

    async def _asked(
        self, databases: Sequence[Database], call: Callable[[Database], Awaitable[_T]]
    ) -> tuple[dict[int, _T], dict[int, StoreError]]:
        """Ask databases at once: what they answer, and why others do not, by their numbers. Raises what one of them refuses."""

        async def one(database: Database) -> _T:
            return await call(database)

        tasks = {asyncio.create_task(one(database)): database for database in databases}
        for task in tasks:
            self._asking.add(task)
            task.add_done_callback(self._asked_in_the_end)
        answers: dict[int, _T] = {}
        failures: dict[int, StoreError] = {}
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE if self.databases.count > 1 else None)
        for task, database in tasks.items():
            error = task.exception() if task.done() else _late(database)
            if isinstance(error, StoreError) and not isinstance(error, InboxError):
                failures[database.number] = error
            elif error is not None:
                raise error
            else:
                answers[database.number] = task.result()
        return answers, failures

    def _asked_in_the_end(self, task: "asyncio.Task[Any]") -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # which was reported, or came too late


def _late(database: Database) -> StoreError:
    database.wakeups.interrupt()  # so that its hub finds out
    return NotConnected(STORE_UNAVAILABLE, f"{database.hub.name} did not answer within {_PATIENCE:g} s")


async def _page(database: Database, key: bytes, before: str | None, max_rows: int, wanted: str | None) -> InboxPage:
    """A page of the list; a search waits for its turn, and gives up if there are many."""
    if not wanted:
        return await database.inboxes.page(key, before, max_rows)
    try:
        async with asyncio.timeout(_PATIENCE):
            await database.searches.acquire()
    except TimeoutError as error:
        raise SearchTooSlow(STORE_UNAVAILABLE, "there are too many searches at once", QUERY_CANCELED) from error
    try:
        return await database.inboxes.page(key, before, max_rows, wanted)
    finally:
        database.searches.release()


async def _after(database: Database, key: bytes, cursor: str, max_rows: int) -> list[InboxRow]:
    async with database.turns:
        return await database.inboxes.after(key, cursor, max_rows)
