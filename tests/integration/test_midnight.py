"""Midnight (UTC) at a database that has a clock of its own: deliveries that are under way then belong to the day on which they
were stored, whenever they commit."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from harness import account
from harness.clock import Clock
from harness.database import Database
from harness.days import KEYS, UNDATED, partitions
from harness.handler import Handler
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import ended, held, stuck
from harness.stream import ingest, writing
from psycopg.errors import InvalidParameterValue

from pipehandler.store import expiry
from pipehandler.store.connection import Store

RAW = b"From: a@example.org\nMessage-ID: <midnight@example.org>\n\nbody\n"
FIRST, SECOND = "first@example.com", "second@example.com"
MIDNIGHT = datetime(2024, 2, 29, tzinfo=UTC)
DAY, NEXT = (MIDNIGHT - timedelta(days=1)).date(), MIDNIGHT.date()

# While a process waits, libfaketime shows the true time to its signal handlers. With a clock in the past an alarm then ends all
# timeouts that run, with one in the future none. So MIDNIGHT is in the past, and only what may end a wait sets an alarm.
SETTINGS = {**FAST, "deadlock_timeout": "10min"}


class Night(NamedTuple):
    """A database, and its clock."""

    database: Database
    clock: Clock

    def set(self, **after: int) -> None:
        """Set the clock to so long after MIDNIGHT (the arguments of timedelta)."""
        self.clock.jump(int((MIDNIGHT + timedelta(**after)).timestamp() - time.time()))

    def days(self, table: str) -> list[object]:
        """The days of the rows of a table."""
        return [row.day for row in self.database.rows(f"SELECT day FROM pipehandler.{table} ORDER BY day")]

    def inbox(self) -> list[tuple[object, ...]]:
        """The recipient, the day and the bytes of each delivery."""
        rows = self.database.rows(
            "SELECT i.recipient, i.day, r.raw FROM pipehandler.inbox i"
            "  JOIN pipehandler.raw_message r ON r.day = i.day AND r.message = i.message ORDER BY i.id"
        )
        return [(row.recipient, row.day, bytes(row.raw)) for row in rows]

    def drop_day(self) -> object:
        """Drop DAY; returns what the function does."""
        return self.database.value("SELECT pipehandler.drop_day(%s)", DAY)


@pytest.fixture(scope="module")
def clocked() -> Iterator[tuple[PostgreSQL, Clock]]:
    """A server under a clock."""
    with account.folder("pipehandler-pg-") as folder:
        clock = Clock(folder)
        with PostgreSQL(folder / "server", VERSION, SETTINGS, under=clock.under) as server:
            yield server.start(), clock
            server.stop()
    Clock.sweep()


@pytest.fixture
def night(clocked: tuple[PostgreSQL, Clock]) -> Iterator[Night]:
    """A new database, a minute before midnight."""
    server, clock = clocked
    Night(None, clock).set(minutes=-1)  # type: ignore[arg-type]
    with Database.fresh(server) as database:
        assert partitions(database) == [DAY, NEXT]
        yield Night(database, clock)


def test_delivery_across_midnight(night: Night) -> None:
    """The entrypoint calls `ingest` before midnight and commits after it: the message has its old day, and is found. Its
    redelivery is a duplicate; a copy for another recipient is a second row of the new day."""
    with account.folder("pipehandler-") as folder:
        # A jump forward uses up the time that the server may spend.
        patient: dict[str, dict[str, object]] = {"database": {"statement_timeout": 300}, "limits": {"deadline": 900}}
        handler = Handler(folder, night.database.conninfo, **patient)
        night.set(minutes=-1)
        with held(night.database):
            running = handler.start(handler.command(FIRST))
            assert running.stdin
            running.stdin.write(RAW)
            running.stdin.close()
            running.stdin = None
            stuck(night.database)
            night.set(seconds=1)
        assert ended(running).status == 0
        assert night.database.value(
            "SELECT stored_at < %s AND now() > %s FROM pipehandler.delivery", MIDNIGHT, MIDNIGHT
        )
        for table in ("delivery", "message", "raw_message"):
            assert night.days(table) == [DAY]
        assert night.inbox() == [(FIRST, DAY, RAW)]

        assert handler.deliver(RAW, FIRST).status == 0
        assert night.inbox() == [(FIRST, DAY, RAW)]
        assert handler.deliver(RAW, FIRST, SECOND).status == 0
        assert night.days("message") == night.days("raw_message") == [DAY, NEXT]
        assert night.inbox() == [(FIRST, DAY, RAW), (SECOND, NEXT, RAW)]
        outcomes = [line.partition(" ")[0] for line in handler.log_lines()]
        assert outcomes == ["outcome=delivered", "outcome=duplicate", "outcome=delivered"]


def test_redelivery_meets_an_open_transaction(night: Night) -> None:
    """The first attempt is open at midnight, and its redelivery comes after it: that waits, and is a duplicate. Another
    recipient's copy does not wait. Where the first attempt is rolled back, the redelivery is stored on its own day."""
    for number, commits in ((1, True), (2, False)):
        night.set(minutes=-1)
        with writing(night.database) as first, writing(night.database) as again, writing(night.database) as other:
            ingest(first, number, FIRST)
            night.set(minutes=1)
            ingest(other, number, SECOND)
            other.commit()
            with ThreadPoolExecutor(1) as pool:
                redelivery = pool.submit(ingest, again, number, FIRST)
                stuck(night.database)
                first.commit() if commits else first.rollback()
                redelivery.result()
            again.commit()
    assert [found[:2] for found in night.inbox()] == [(FIRST, DAY), (SECOND, NEXT), (SECOND, NEXT), (FIRST, NEXT)]
    assert night.days("message") == [DAY, NEXT, NEXT]


def test_open_for_days(night: Night) -> None:
    """A transaction that began before midnight stays open for days: neither `drop_day` nor `expire` takes its day, and its
    message is found when it commits at last. The day goes when its mail has expired."""
    with writing(night.database) as first:
        ingest(first, 1, FIRST)
        for later in ({"minutes": 1}, {"days": 1, "minutes": -1}):
            night.set(**later)
            with pytest.raises(InvalidParameterValue, match=f"the day {DAY} has not been over for a day"):
                night.drop_day()
        night.set(days=3)
        assert night.drop_day() is None
        assert _expire(night) == {}
        assert partitions(night.database)[0] == DAY
        first.commit()
    assert [found[:2] for found in night.inbox()] == [(FIRST, DAY)]
    assert night.drop_day() is False
    night.database.execute("UPDATE pipehandler.delivery SET expires_at = stored_at + interval '1 day'")
    assert night.drop_day() is True
    assert DAY not in partitions(night.database)
    for table in KEYS:
        assert night.days(table) == []


def test_no_partition_for_the_new_day(night: Night) -> None:
    """`expire` has not run for days: what comes after midnight is stored undated, and is found."""
    night.set(days=2)
    with writing(night.database) as late:
        ingest(late, 1, FIRST)
        night.set(days=3)
        late.commit()
    assert [found[:2] for found in night.inbox()] == [(FIRST, UNDATED)]


def _expire(night: Night) -> dict[str, int]:
    """One run of `expire`; returns what it did."""
    total: expiry.Counts = expiry.Counts()
    with closing(Store(night.database.server.conninfo(night.database.name, user="upkeep"))) as store:
        for counts in expiry.expire(store, ()):
            total.update(counts)
    return dict(+total)
