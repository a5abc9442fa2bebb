"""No clock of a mail host changes how long mail is kept: the database counts from the time when it stored it."""

from contextlib import closing
from datetime import timedelta

import pytest
from harness.database import Database
from harness.submission import MESSAGE, submission

from pipehandler.settings.retention import Rule
from pipehandler.store import expiry
from pipehandler.store.message_store import MessageStore

RULE = Rule(keep=timedelta(hours=1), raw=timedelta(minutes=30), attachments=timedelta(minutes=20))

CLOCKS = {
    "1970-01-01T00:00:00+00:00": True,
    "1970-01-01T00:00:00+14:00": True,
    "1999-12-31T23:59:60+00:00": True,
    "2026-08-01T00:00:00-12:00": True,
    "9998-12-31T23:59:59+00:00": True,
    "9999-12-31T23:59:59.999999-12:00": True,
    "0001-01-01T00:00:00+00:00": False,
    "1969-12-31T00:00:00+00:00": False,
    "10000-01-01T00:00:00+00:00": False,
    "294276-12-31T23:59:59+00:00": False,
    "999999-01-01T00:00:00+00:00": False,
    "4714-11-24T00:00:00+00:00 BC": False,
    "infinity": False,
    "-infinity": False,
    "": False,
}
"""Times that a mail host may report, and whether they are kept as information (whatever the current year)."""


def run(database: Database, *rules: Rule) -> dict[str, int]:
    """One whole run of expire."""
    total: expiry.Counts = expiry.Counts()
    with closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as store:
        for counts in expiry.expire(store, rules):
            total.update(counts)
    return dict(+total)


def test_retention_counts_from_the_database(every_database: Database) -> None:
    """Whatever the clock of a mail host shows, its mail is stored and visible, keeps its time, and is not removed
    early."""
    database = every_database
    assert run(database, RULE) == {}
    with closing(MessageStore(database.conninfo)) as store:
        for number, clock in enumerate(CLOCKS):
            (stored,) = store.ingest(submission(MESSAGE, f"{number}@example.com", received_at=clock))
            assert not stored.duplicate
    assert database.value("SELECT count(*) FROM pipehandler.inbox") == len(CLOCKS)
    rows = database.rows(
        "SELECT recipient, received_at, expires_at - stored_at AS keep, raw_until - stored_at AS raw,"
        " attachments_until - stored_at AS attachments, received_at = stored_at AS unknown FROM pipehandler.delivery"
        " ORDER BY id"
    )
    assert {(row.keep, row.raw, row.attachments) for row in rows} == {(RULE.keep, RULE.raw, RULE.attachments)}
    assert [not row.unknown for row in rows] == list(CLOCKS.values())
    assert all(row.received_at.year in range(1969, 10000) for row in rows)
    assert run(database, RULE) == {}
    assert database.value("SELECT count(*) FROM pipehandler.inbox") == len(CLOCKS)
    # It does expire in the end.
    database.execute("UPDATE pipehandler.delivery SET expires_at = now()")
    assert run(database, RULE)["deliveries"] == len(CLOCKS)


@pytest.mark.parametrize("clock", ["1970-01-01T00:00:00+00:00", "9998-01-01T00:00:00+00:00"])
def test_new_rules_count_from_the_database(database: Database, clock: str) -> None:
    """Later rules give stored mail the same times."""
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission(received_at=clock))
    assert run(database, RULE) == {"applied": 1, "changed": 1}
    assert database.value("SELECT expires_at - stored_at FROM pipehandler.delivery") == RULE.keep
    assert database.value(
        "SELECT n.expires_at = d.expires_at FROM pipehandler.delivery_under_current_rules n"
        " JOIN pipehandler.delivery d ON d.day = n.day AND d.id = n.id"
    )


def test_the_order_of_the_stream(database: Database) -> None:
    """The stream has the order in which deliveries were stored, whatever the clocks of the mail hosts showed."""
    clocks = ["9000-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]
    with closing(MessageStore(database.conninfo)) as store:
        numbers = [
            store.ingest(submission(MESSAGE, f"{n}@example.com", received_at=clock))[0].delivery
            for n, clock in enumerate(clocks)
        ]
    rows = database.rows("SELECT id FROM pipehandler.deliveries_after('')")
    assert [row.id for row in rows] == numbers == sorted(numbers)
