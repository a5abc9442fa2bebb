"""A queue of notifications that is full, as every role that can connect may make it: what sends one goes on without."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.inboxes import Page, issue, send
from harness.missing import missing
from harness.postgresql import FAST, PostgreSQL, binaries
from psycopg.errors import ProgramLimitExceeded

from pipehandler.store import expiry
from pipehandler.store.connection import Store
from pipehandler.store.inboxes import Inboxes
from pipehandler.store.wakeups import Wakeups
from pipehandler.web import hub


@pytest.fixture
def full() -> Iterator[Database]:
    """A database whose queue is full: a session that listens does not read, and another one sends."""
    newest = max(binaries())
    if newest < 17:
        missing("PostgreSQL 17, whose queue can be made small,")
    with account.folder("pipehandler-pg-") as folder:
        server = PostgreSQL(folder / "server", newest, FAST | {"max_notify_queue_pages": "64"}).start()
        with Database.fresh(server) as database:
            issue(database)
            with (
                psycopg.connect(database.conninfo) as deaf,
                psycopg.connect(database.conninfo, autocommit=True) as loud,
            ):
                deaf.execute("LISTEN anything")
                deaf.commit()
                deaf.execute("SELECT")
                with suppress(ProgramLimitExceeded):
                    while True:
                        loud.execute("SELECT pg_notify('anything', repeat('x', 7000))")
                yield database
        server.stop()


def test_everything_goes_on(full: Database) -> None:
    """Mail is stored, shown and removed; inboxes are opened, extended and ended, and keys revoked."""
    page = Page(full)
    key, opened = page.open("anna")
    assert opened.address
    deliveries = [delivery for _ in range(2) for delivery in send(full, opened.address)]
    calls = (
        ("SELECT pipehandler.extend_inbox(%s, '1 h')", [key]),
        ("SELECT pipehandler.share_inbox(%s, sha256('other'))", [key]),
        ("SELECT pipehandler.unshare_inbox(%s)", [key]),
        ("SELECT pipehandler.remove_inbox_mail(%s, %s::bigint[])", [key, deliveries[:1]]),
        ("SELECT pipehandler.expire_inbox(%s)", [key]),
        ("SELECT pipehandler.remove_inbox(%s)", [key]),
    )
    with psycopg.connect(page.conninfo, autocommit=True) as session:
        for statement, parameters in calls:
            session.execute(statement, parameters)
    full.execute("SELECT pipehandler.grant_view(sha256('viewer'), NULL, 'team')")
    assert full.value("SELECT pipehandler.revoke_view('team')") == 1
    with closing(Store(full.server.conninfo(full.name, user="upkeep"))) as store:
        assert list(expiry.expire(store, ()))


def test_streams_end_without_a_notification(full: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose key is revoked meanwhile hears of it, though later."""
    monkeypatch.setattr(hub, "_LATEST_CHECK", 0.1)
    monkeypatch.setattr(hub, "_POLL_LISTENING", 0.1)
    page = Page(full)
    key, opened = page.open("anna")

    async def stream(inboxes: Inboxes) -> bool:
        async def look_up(keys: Sequence[bytes]) -> hub.Found:
            return hub.Found(await inboxes.inboxes(keys), {})

        wakeups = Wakeups(page.conninfo)
        served = hub.Hub(inboxes, wakeups, look_up)
        running = asyncio.create_task(served.run())
        waiter = hub.Waiter(key, opened)
        try:
            with served.waiting(waiter, opened.lease):
                async with asyncio.timeout(60):
                    while not served.listening:
                        await asyncio.sleep(0.01)
                    await inboxes.remove(key)
                    while waiter.inbox is not None:
                        await asyncio.sleep(0.01)
                return waiter.woken.is_set()
        finally:
            await hub.cancelled(running)
            await wakeups.close()

    assert page.run(stream)
