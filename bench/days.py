"""Retention by days: what it costs to remove a day of mail as a whole, beside removing the same mail row by row.

    bench/run days [--messages 1000000] [--days 400] [--rounds 30]

The messages are those of bench/run expiry, inserted into the tables directly: once into the partition without a day,
where expire removes them row by row, and once into a day that is over, which it drops. WAL is that of the removal and
of the VACUUM of these tables that follows, each after a checkpoint, so whole pages are included. The plans are those of a database with
`days` days, of which one has mail. Takes ten gigabytes for a million messages.
"""

import statistics
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import psycopg
from expiry import POOL, STORE
from harness.database import Database
from harness.days import UNDATED, create_day
from report import Aim, Report, Table
from setting import Setting

from pipehandler.store import expiry
from pipehandler.store.connection import Store

SMALL = {"messages": 2_000, "days": 10, "rounds": 3}
_TOGETHER = 1_000  # messages in one transaction

_PLANS = {
    "inbox, all columns": "SELECT * FROM pipehandler.inbox WHERE id = 1",
    "inbox, one day": "SELECT subject FROM pipehandler.inbox WHERE id = 1 AND day = '{}'",
    "inbox, one day, all columns": "SELECT * FROM pipehandler.inbox WHERE id = 1 AND day = '{}'",
}


class _Removal(NamedTuple):
    seconds: float
    vacuum_seconds: float
    octets: int
    """Of WAL, VACUUM included."""


def measure(setting: Setting, *, messages: int = 1_000_000, days: int = 400, rounds: int = 30) -> Report:
    """Remove both ways; raises unless nothing is left."""
    old = datetime.now(UTC).date() - timedelta(days=40)
    rows, day = (_removed(setting, messages, each) for each in (UNDATED, old))
    table = Table(
        "Removing mail",
        ["way", "s", "VACUUM s", "WAL MB", "WAL octets per message"],
        [
            [way, each.seconds, each.vacuum_seconds, each.octets / 2**20, each.octets / messages]
            for way, each in (("row by row", rows), ("a whole day", day))
        ],
        f"{messages:,} messages of about 9 KB, one delivery each.",
    )
    return Report(
        [table, _plans(setting, days, rounds)],
        [
            Aim("seconds to remove a day of these messages", day.seconds, 5.0),
            Aim("WAL of a whole day, of removing it row by row", day.octets / rows.octets, 0.06),
        ],
    )


def _removed(setting: Setting, messages: int, day: date) -> _Removal:
    with Database.fresh(setting.server) as database:
        if day != UNDATED:
            create_day(database, day)
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(POOL)
            for first in range(1, messages + 1, _TOGETHER):
                last = min(first + _TOGETHER - 1, messages)
                connection.execute(STORE, {"first": first, "last": last, "day": day})
            connection.execute("SELECT pipehandler.create_days()")  # once a day, however much mail there is
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")
        begun = database.value("SELECT pg_current_wal_insert_lsn()")
        started = time.monotonic()
        with closing(Store(database.admin, statement_timeout=600)) as store:
            for _ in expiry.expire(store, ()):
                pass
        removed = time.monotonic()
        database.execute(
            "VACUUM pipehandler.delivery, pipehandler.message, pipehandler.raw_message, pipehandler.attachment"
        )
        ended = time.monotonic()
        octets = database.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", begun)
        left = database.value("SELECT count(*) FROM pipehandler.delivery") + database.value(
            "SELECT count(*) FROM pipehandler.message"
        )
        if left:
            raise RuntimeError(f"{left} rows are left")
    return _Removal(removed - started, ended - removed, int(octets))


def _plans(setting: Setting, days: int, rounds: int) -> Table:
    """How long planning takes with few and with many days, and a call that reads in two steps."""
    rows: list[list[object]] = []
    for count in (2, days):
        with Database.fresh(setting.server) as database:
            for ahead in range(0, count, 20):  # each transaction locks what it creates
                database.execute("SELECT pipehandler.create_days(%s)", min(ahead + 19, count - 1))
            today = datetime.now(UTC).date()
            with psycopg.connect(database.admin, autocommit=True) as connection:
                for name, statement in _PLANS.items():
                    spent = []
                    for _ in range(rounds + 1):
                        explained = connection.execute(f"EXPLAIN (SUMMARY, FORMAT JSON) {statement.format(today)}")
                        ((plan,),) = explained.fetchall()
                        spent.append(plan[0]["Planning Time"])
                    rows.append([f"planning {name}", count, statistics.median(spent[1:])])
                spent = []
                for _ in range(rounds + 1):
                    before = time.perf_counter()
                    connection.execute("SELECT * FROM pipehandler.deliveries_after('')").fetchall()
                    spent.append((time.perf_counter() - before) * 1000)
                rows.append(["deliveries_after", count, statistics.median(spent[1:])])
    return Table("Plans", ["statement", "days", "ms"], rows, f"Medians of {rounds}; the first one is left out.")
