"""Mail is divided by the day on which it was stored: nothing is lost or doubled at midnight, no missing partition defers
mail, and retention removes whole days."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.days import KEYS, UNDATED, drop_day, make_older, partition, partitions, today
from harness.postgresql import VERSION
from harness.service import wait_until
from harness.stream import ingest, numbered
from harness.submission import submission
from psycopg.errors import ForeignKeyViolation, InvalidParameterValue, InvalidTransactionState, QueryCanceled

from pipehandler.check.database import check_database
from pipehandler.check.finding import Finding
from pipehandler.settings import config as settings
from pipehandler.settings.retention import Rule
from pipehandler.store import expiry, listing, messages
from pipehandler.store.errors import StoreError
from pipehandler.store.filters import Filters
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore

PICTURE = (
    b"From: a@example.org\nMessage-ID: <picture@example.org>\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n"
    b"--b\nContent-Type: image/gif\n\nGIF\n--b--\n"
)
KEPT = Rule(keep=timedelta(days=30))


@contextmanager
def opened(database: Database, user: str = "pipehandler") -> Iterator[MessageStore]:
    """A session of a role."""
    with closing(MessageStore(database.server.conninfo(database.name, user=user))) as store:
        yield store


def deliver(database: Database, raw: bytes = PICTURE, *recipients: str, **changes: Any) -> list[Stored]:
    """Store a message as the handler does."""
    with opened(database) as store:
        return store.ingest(submission(raw, *recipients, **changes))


def run(database: Database, *rules: Rule) -> dict[str, int]:
    """One run of `expire`, under its role; returns what it did."""
    total: expiry.Counts = expiry.Counts()
    with opened(database, "upkeep") as store:
        for counts in expiry.expire(store, rules):
            total.update(counts)
    return dict(+total)


def days_of(database: Database, table: str) -> list[date]:
    """The days of the rows of a table."""
    return [row.day for row in database.rows(f"SELECT day FROM pipehandler.{table} ORDER BY 1")]


def missing_partitions(database: Database) -> list[Finding]:
    """What `check` finds about the partitions of today and tomorrow."""
    config = settings.Config(database=settings.Database(conninfo=database.conninfo))
    return [each for each in check_database(config, "x.toml", 1) if each.code == "partition-missing"]


def recipients(database: Database) -> list[str]:
    """Who has a delivery."""
    return [row.recipient for row in database.rows("SELECT recipient FROM pipehandler.delivery ORDER BY 1")]


def whole(database: Database) -> list[tuple[str, bytes, bytes | None]]:
    """What each delivery has: its bytes, and the content of its attachment."""
    rows = database.rows(
        "SELECT d.recipient, r.raw, a.content FROM pipehandler.delivery d"
        "  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
        "  JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        "  LEFT JOIN pipehandler.attachment a ON a.day = d.day AND a.message = d.message ORDER BY d.id"
    )
    return [(row.recipient, bytes(row.raw), row.content and bytes(row.content)) for row in rows]


def test_day(every_database: Database) -> None:
    """All of a message has the day on which the database stored it, whatever its host says; migrate creates that day and
    the next, expire a week."""
    deliver(every_database, received_at="2020-02-02T10:00:00Z")
    for table in (*KEYS, "delivery"):
        assert days_of(every_database, table) == [today()]
    assert partitions(every_database) == [today(), today() + timedelta(days=1)]
    run(every_database)
    assert partitions(every_database) == [today() + timedelta(days=ahead) for ahead in range(8)]


def test_midnight(every_database: Database) -> None:
    """A message that comes again after midnight is a duplicate. Another recipient's copy is stored once more, and each of
    them sees it once."""
    (first,) = deliver(every_database, PICTURE, "a@example.com")
    yesterday = make_older(every_database, 1)
    assert deliver(every_database, PICTURE, "a@example.com") == [first._replace(duplicate=True)]
    again, other = sorted(
        deliver(every_database, PICTURE, "a@example.com", "b@example.com"), key=lambda stored: stored.delivery
    )
    assert (again, other.duplicate) == (first._replace(duplicate=True), False)
    assert other.message == first.message
    assert days_of(every_database, "delivery") == [yesterday, today()]
    assert whole(every_database) == [("a@example.com", PICTURE, b"GIF"), ("b@example.com", PICTURE, b"GIF")]
    rows = every_database.rows("SELECT recipient, attachments, day FROM pipehandler.inbox ORDER BY id")
    assert [tuple(row) for row in rows] == [("a@example.com", 1, yesterday), ("b@example.com", 1, today())]
    with opened(every_database, "reader") as store:
        assert [(entry.recipient, entry.attachments) for entry in listing.deliveries(store)] == [
            ("b@example.com", 1),
            ("a@example.com", 1),
        ]
        for filters in (Filters(sender="a@example.org"), Filters(state="parsed")):
            assert len(listing.deliveries(store, filters)) == 2
        found = messages.message(store, first.message)
        assert [delivery.recipient for delivery in found.deliveries] == ["a@example.com", "b@example.com"]
        assert len(found.attachments) == 1
        assert messages.raw(store, first.message) == PICTURE
        assert messages.attachment(store, first.message, 1) == b"GIF"
        for call in ("deliveries_after('')", "deliveries_after('', 'a@example.com')"):
            rows = store.rows(f"SELECT recipient, attachments FROM pipehandler.{call}")
            assert all(row["attachments"] == 1 for row in rows)
            assert len(rows) == (1 if "@" in call else 2)


@pytest.mark.parametrize("missing", [list(KEYS), ["raw_message"], ["attachment"]], ids="-".join)
def test_missing_partition(every_database: Database, missing: list[str]) -> None:
    """Mail is stored while a partition of its day is missing, and is the same afterwards."""
    for table in missing:
        every_database.execute(f"DROP TABLE {partition(table, today())}")
    (first,) = deliver(every_database)
    assert days_of(every_database, "delivery") == days_of(every_database, "message") == [UNDATED]
    run(every_database)
    assert deliver(every_database) == [first._replace(duplicate=True)]
    deliver(every_database, PICTURE, "b@example.com")
    assert days_of(every_database, "message") == [UNDATED, today()]
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    assert run(every_database) == {"deliveries": 2, "messages": 2}
    assert days_of(every_database, "raw_message") == []


def test_partitions_are_created_by_one(database: Database) -> None:
    """Several runs that create days at the same moment do not disturb each other, nor a delivery that is under way."""
    with psycopg.connect(database.admin) as other:
        other.execute("INSERT INTO pipehandler.retention_hold (rules) VALUES ('[]')")
        other.execute("SELECT FROM pipehandler.message FOR KEY SHARE")
        other.execute(
            "LOCK TABLE pipehandler.message, pipehandler.raw_message, pipehandler.attachment IN ROW EXCLUSIVE MODE"
        )
        with ThreadPoolExecutor(4) as pool:
            created = list(
                pool.map(lambda _: database.value("SELECT pipehandler.create_days(20)"), range(4)),
            )
        other.rollback()
    assert sorted(created) == [0, 0, 0, 19]


def test_whole_day(every_database: Database) -> None:
    """A day all of whose mail is due is dropped with its deliveries; a younger one and today stay."""
    run(every_database, KEPT)
    for number, days in enumerate((31, 20, 0)):
        deliver(every_database, numbered(number), f"{days}@example.com")
        if days:
            make_older(every_database, days)
    run(every_database, KEPT)
    assert recipients(every_database) == ["0@example.com", "20@example.com"]
    assert today() - timedelta(days=31) not in partitions(every_database)
    assert days_of(every_database, "message") == days_of(every_database, "raw_message")
    assert len(whole(every_database)) == 2
    assert run(every_database, KEPT) == {}


def test_what_is_due_waits_for_the_rest_of_its_day(every_database: Database) -> None:
    """Of a day that will be due as a whole within a day, nothing is removed row by row, and nothing shows what is due; it
    is not reported as late. With its last delivery the day goes."""
    run(every_database, KEPT)
    for number in range(2):
        deliver(every_database, numbered(number), f"{number}@example.com")
    day = make_older(every_database, 30)
    every_database.execute(
        "UPDATE pipehandler.delivery SET expires_at = now() + CASE recipient WHEN '0@example.com' THEN interval '-1 h'"
        " ELSE interval '1 h' END"
    )
    assert run(every_database, KEPT) == {}
    assert len(recipients(every_database)) == 2
    assert every_database.value("SELECT oldest_expired IS NULL FROM pipehandler.health()")
    rows = every_database.rows("SELECT recipient FROM pipehandler.inbox")
    assert [row.recipient for row in rows] == ["1@example.com"]
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = expires_at - interval '2 h'")
    assert every_database.value("SELECT oldest_expired < now() FROM pipehandler.health()")
    assert run(every_database, KEPT) == {"days": 1, "deliveries": 2}
    assert day not in partitions(every_database)
    assert every_database.value("SELECT oldest_expired IS NULL FROM pipehandler.health()")


@pytest.mark.parametrize("kept", ["forever", "longer", "lease"])
def test_part_of_a_day(database: Database, kept: str) -> None:
    """What is due is removed row by row where other mail of its day is kept for longer; and so is mail of a lease that
    has ended, on a day that waits."""
    lease = database.value("SELECT (pipehandler.lease_address('gone@example.com')).lease")
    deliver(database, numbered(1), "gone@example.com")
    deliver(database, numbered(2), "stays@example.com")
    day = make_older(database, 30)
    if kept == "lease":
        database.execute("UPDATE pipehandler.delivery SET expires_at = now() + interval '1 h'")
        database.execute("SELECT pipehandler.expire_lease(%s)", lease)
    else:
        database.execute(
            "UPDATE pipehandler.delivery SET expires_at = CASE recipient WHEN 'gone@example.com' THEN now() - interval '1 s'"
            " ELSE now() + %s::interval END",
            "1 year" if kept == "longer" else None,
        )
    with opened(database, "upkeep") as store:
        (removed,) = store.rows("SELECT deliveries, messages FROM pipehandler.expire()")
    assert removed == {"deliveries": 1, "messages": 1}
    assert recipients(database) == ["stays@example.com"]
    assert days_of(database, "raw_message") == [day]
    assert day in partitions(database)


def test_day_without_mail(database: Database) -> None:
    """A day whose mail was all removed row by row is dropped; one that has not been over for a day is not, whatever it
    has."""
    for days in (9, 1):
        deliver(database, numbered(days))
        make_older(database, days)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s' WHERE day = current_date - 1")
    database.execute(
        "SELECT pipehandler.remove_deliveries(ARRAY(SELECT id FROM pipehandler.delivery WHERE day < current_date - 1))"
    )
    assert run(database) == {"days": 1, "deliveries": 1, "messages": 1}
    assert today() - timedelta(days=9) not in partitions(database)
    assert today() - timedelta(days=1) in partitions(database)
    for day in (today() - timedelta(days=1), today(), UNDATED, None):
        with pytest.raises(InvalidParameterValue, match="has not been over for a day"):
            database.execute("SELECT pipehandler.drop_day(%s)", day)


def test_a_day_that_is_used_is_not_dropped(database: Database) -> None:
    """Whoever stores or repairs a delivery of a day holds a lock until its end: the day is not dropped meanwhile, nor
    afterwards, because then the delivery is seen."""
    deliver(database, numbered(1))
    day = make_older(database, 9)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    with psycopg.connect(database.admin) as other:
        # As ingest does: its message is held, then its delivery is committed.
        other.execute("SELECT FROM pipehandler.message WHERE day = %s FOR KEY SHARE", [day])
        other.execute(
            "INSERT INTO pipehandler.delivery (day, message, recipient, fingerprint, sender, mail_host, ingress, received_at)"
            " SELECT day, id, 'a@example.com', sha256, '', 'mx', 'pipe', now() FROM pipehandler.message WHERE day = %s",
            [day],
        )
        assert database.value("SELECT pipehandler.drop_day(%s)", day) is None
        assert run(database) == {}
        other.commit()
    assert database.value("SELECT pipehandler.drop_day(%s)", day) is False
    assert run(database) == {"deliveries": 1}
    assert days_of(database, "message") == [day]
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    assert run(database) == {"days": 1, "deliveries": 1}


def waits(database: Database, application: str) -> bool:
    """Whether a session waits for a lock."""
    return bool(
        database.rows(
            "SELECT FROM pg_stat_activity WHERE application_name = %s AND cardinality(pg_blocking_pids(pid)) > 0",
            application,
        )
    )


def test_a_duplicate_while_its_day_is_dropped(database: Database) -> None:
    """A message comes again, also for another recipient, while its day is being dropped: the delivery waits for that, the
    copy is whole, and what had expired stays a duplicate. If the delivery is first, the day stays until it has ended."""
    for first in ("drop", "delivery"):
        deliver(database, PICTURE, "a@example.com")
        day = make_older(database, 9)
        database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
        again = submission(PICTURE, "a@example.com", f"{first}@example.com")
        with psycopg.connect(database.admin) as dropping, ThreadPoolExecutor(1) as pool:
            conninfo = f"{database.conninfo} application_name=duplicate"
            with closing(MessageStore(conninfo)) as store, psycopg.connect(database.conninfo) as other:
                if first == "drop":
                    assert dropping.execute("SELECT pipehandler.drop_day(%s)", [day]).fetchall() == [(True,)]
                    delivering = pool.submit(store.ingest, again)
                    wait_until(lambda: waits(database, "duplicate"), "that the delivery waits for the day")
                    dropping.commit()
                    rows = {row.recipient: row.duplicate for row in delivering.result(60)}
                else:
                    statement = "SELECT recipient, duplicate FROM pipehandler.ingest(%s, %s, %s, %s, %b, %b, %b)"
                    rows = dict(other.execute(statement, again.arguments()).fetchall())
                    assert dropping.execute("SELECT pipehandler.drop_day(%s)", [day]).fetchall() == [(None,)]
                    other.commit()
                    assert dropping.execute("SELECT pipehandler.drop_day(%s)", [day]).fetchall() == [(True,)]
                    dropping.commit()
        assert rows == {"a@example.com": True, f"{first}@example.com": False}
        assert whole(database) == [(f"{first}@example.com", PICTURE, b"GIF")]
        assert run(database) == {"deliveries": 1}
        assert recipients(database) == [f"{first}@example.com"]
        database.execute("SELECT pipehandler.remove_deliveries(ARRAY(SELECT id FROM pipehandler.delivery))")


def test_a_repair_while_its_day_is_dropped(database: Database) -> None:
    """A delivery expires, and its day is dropped, after a transaction has begun that finds its bytes missing and stores them
    again: they go to the day of today, and nothing fails."""
    (stored,) = deliver(database)
    day = make_older(database, 9)
    database.execute("DELETE FROM pipehandler.raw_message")
    with psycopg.connect(f"{database.conninfo} application_name=repair") as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT now()")  # for which it has not expired
        database.execute("UPDATE pipehandler.delivery SET expires_at = clock_timestamp()")
        with psycopg.connect(database.admin) as dropping:
            assert dropping.execute("SELECT pipehandler.drop_day(%s)", [day]).fetchall() == [(True,)]
            statement = "SELECT delivery, duplicate FROM pipehandler.ingest(%s, %s, %s, %s, %b, %b, %b)"
            repairing = pool.submit(lambda: other.execute(statement, submission(PICTURE).arguments()).fetchall())
            wait_until(lambda: waits(database, "repair"), "that the delivery waits for the day")
            dropping.commit()
        assert repairing.result(60) == [(stored.delivery, False)]
        other.commit()
    assert days_of(database, "delivery") == days_of(database, "raw_message") == [today()]


def test_a_time_that_is_changed_by_hand(database: Database) -> None:
    """Whoever gives a delivery another time, in SQL too, keeps its day from being dropped."""
    deliver(database)
    day = make_older(database, 9)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    with psycopg.connect(database.server.conninfo(database.name, user="upkeep")) as other:
        other.execute("UPDATE pipehandler.delivery SET expires_at = NULL")
        assert database.value("SELECT pipehandler.drop_day(%s)", day) is None
        other.commit()
    assert database.value("SELECT pipehandler.drop_day(%s)", day) is False
    assert len(whole(database)) == 1


def test_a_restore_that_goes_on(database: Database) -> None:
    """Mail whose deliveries are still to be restored is not dropped for want of them, and keeps no other day."""
    for days in (9, 8):
        deliver(database, PICTURE, f"{days}@example.com")
        make_older(database, days)
    (kept,) = database.rows("SELECT to_json(d) AS row FROM pipehandler.delivery d WHERE day = current_date - 9")
    database.execute("DELETE FROM pipehandler.delivery WHERE day = current_date - 9")
    database.execute("DELETE FROM pipehandler.message WHERE day = current_date - 9")
    for table in ("message", "raw_message"):  # of the attachments nothing is lost before the deliveries are there
        assert days_of(database, table) == [today() - timedelta(days=8)]
    with psycopg.connect(database.admin) as restore:
        restore.execute(
            "INSERT INTO pipehandler.attachment SELECT (jsonb_populate_record(a, jsonb_build_object('day', current_date - 9))).*"
            "  FROM pipehandler.attachment a"
        )
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    assert run(database) == {"days": 1, "deliveries": 1}
    assert days_of(database, "attachment") == [today() - timedelta(days=9)]
    assert kept.row["recipient"] == "9@example.com"


def test_a_day_that_an_operator_has_detached(database: Database) -> None:
    """What was detached, to be archived, is never dropped. Mail of that day that comes again is stored again, today."""
    (first,) = deliver(database)
    day = make_older(database, 9)
    for table in KEYS:
        database.execute(f"ALTER TABLE pipehandler.{table} DETACH PARTITION {partition(table, day)}")
    assert deliver(database) == [first]
    assert days_of(database, "delivery") == days_of(database, "message") == [today()]
    database.execute(
        f"ALTER TABLE pipehandler.message ATTACH PARTITION {partition('message', day)}"
        f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
    )
    database.execute("DELETE FROM pipehandler.message WHERE day < current_date")
    assert run(database) == {"days": 1}
    for table in ("raw_message", "attachment"):
        assert database.value(f"SELECT count(*) FROM {partition(table, day)}") == 1


def half_detach(database: Database, leaf: str) -> None:
    """DETACH PARTITION ... CONCURRENTLY, interrupted between its two transactions."""
    table = leaf[: -len("_YYYYMMDD")]
    with (
        psycopg.connect(database.admin) as reader,
        psycopg.connect(database.admin, autocommit=True, options="-c statement_timeout=200") as operator,
    ):
        reader.execute(f"SELECT FROM {table}")
        with pytest.raises(QueryCanceled):
            operator.execute(f"ALTER TABLE {table} DETACH PARTITION {leaf} CONCURRENTLY")


@pytest.mark.parametrize("table", KEYS)
def test_today_is_detached(database: Database, table: str) -> None:
    """Where the partition of today has its name and is not attached, mail is stored without a day. `check` says that
    `expire` cannot help."""
    leaf = partition(table, today())
    database.execute(f"ALTER TABLE pipehandler.{table} DETACH PARTITION {leaf}")
    (first,) = deliver(database)
    assert days_of(database, "delivery") == [UNDATED]
    run(database)
    (finding,) = missing_partitions(database)
    assert f"{leaf} is not attached" in finding.what
    database.execute(finding.fix)
    assert missing_partitions(database) == []
    assert deliver(database) == [first._replace(duplicate=True)]
    deliver(database, numbered(1))
    assert days_of(database, "delivery") == [UNDATED, today()]


def test_today_is_half_detached(every_database: Database) -> None:
    """The same where DETACH PARTITION ... CONCURRENTLY was interrupted, until the commands that `check` prints were run."""
    half_detach(every_database, partition("raw_message", today()))
    (first,) = deliver(every_database)
    assert deliver(every_database) == [first._replace(duplicate=True)]
    assert days_of(every_database, "delivery") == [UNDATED]
    run(every_database)
    (finding,) = missing_partitions(every_database)
    every_database.execute(finding.fix)
    assert missing_partitions(every_database) == []
    assert deliver(every_database) == [first._replace(duplicate=True)]


def test_a_day_that_is_half_detached(every_database: Database) -> None:
    """It is not dropped either: whoever began to detach it wants to keep it."""
    deliver(every_database)
    day = make_older(every_database, 9)
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    for table in KEYS:
        half_detach(every_database, partition(table, day))
    assert run(every_database) == {"deliveries": 1}
    assert run(every_database) == {}
    for table in KEYS:
        assert every_database.value(f"SELECT count(*) FROM {partition(table, day)}") == 1


def test_other_bounds_defer_mail(database: Database) -> None:
    """Where what has the name of the partition of today has other bounds, mail is deferred and not blamed."""
    leaf = partition("raw_message", today())
    database.execute(f"ALTER TABLE pipehandler.raw_message DETACH PARTITION {leaf}")
    database.execute(
        f"ALTER TABLE pipehandler.raw_message ATTACH PARTITION {leaf} FOR VALUES FROM ('3000-01-01') TO ('3000-01-02')"
    )
    with closing(MessageStore(database.conninfo)) as store, pytest.raises(StoreError) as raised:
        store.ingest(submission(b"Message-ID: <1@x>\n\n"))
    assert (raised.value.sqlstate, raised.value.outcome.status, raised.value.outage) == ("40001", 75, False)


def test_the_stream_goes_on_after_a_day_that_is_gone(database: Database) -> None:
    """Deliveries whose message is gone do not end the stream, however many they are."""
    for number in range(3):
        deliver(database, numbered(number), f"{number}@example.com")
    drop_day(database, make_older(database, 9))
    database.execute("SELECT pipehandler.create_days()")
    deliver(database, numbered(9), "last@example.com")
    for rows in (1, 2, 3, 4):
        (found,) = database.rows("SELECT recipient FROM pipehandler.deliveries_after('', max_rows => %s)", rows)
        assert found.recipient == "last@example.com"


def test_nothing_remains_of_what_was_replaced(database: Database) -> None:
    """A delivery that lacks something is repaired by mail for another recipient, today: its former message goes."""
    (first,) = deliver(database, PICTURE, "a@example.com")
    make_older(database, 9)
    database.execute("UPDATE pipehandler.attachment SET content = NULL")
    again = deliver(database, PICTURE, "a@example.com", "b@example.com")
    assert {(stored.delivery == first.delivery, stored.duplicate) for stored in again} == {
        (True, False),
        (False, False),
    }
    for table in KEYS:
        assert days_of(database, table) == [today()]
    assert whole(database) == [("a@example.com", PICTURE, b"GIF"), ("b@example.com", PICTURE, b"GIF")]


def test_no_lock_for_a_new_day(database: Database) -> None:
    """While VACUUM keeps a day from being created, everything else of a run is done."""
    deliver(database)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    database.execute("ALTER FUNCTION pipehandler.create_days SET lock_timeout = '1ms'")
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE pipehandler.message IN SHARE UPDATE EXCLUSIVE MODE")
        assert run(database) == {"deliveries": 1, "messages": 1}
    assert database.value("SELECT pipehandler.days_prepared()") == 2


def test_days_that_cannot_be_dropped_are_removed_row_by_row(every_database: Database) -> None:
    """Where the tables have been in use for a day, and with `expire` of the previous release, which drops nothing: what is due
    for longer goes row by row, and so do deliveries whose partitions are gone."""
    for number, days in ((1, 12), (2, 9)):
        deliver(every_database, numbered(number), f"{number}@example.com")
        make_older(every_database, days)
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 h'")
    statement = "SELECT deliveries, messages, raws FROM pipehandler.expire(500, '-infinity')"
    assert [tuple(row) for row in every_database.rows(statement)] == [(0, 0, 0)]
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '25 h'")
    drop_day(every_database, today() - timedelta(days=12))
    assert [tuple(row) for row in every_database.rows(statement)] == [(2, 1, 0)]
    assert days_of(every_database, "raw_message") == []


REFUSES = "CREATE FUNCTION public.refuse() RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;"

IN_THE_WAY = {
    "view": "CREATE VIEW public.archive AS SELECT * FROM {leaf}",
    "foreign key": "CREATE TABLE public.ticket (id uuid REFERENCES {leaf} (id)); INSERT INTO public.ticket SELECT id FROM {leaf}",
    "event trigger": REFUSES.format("event_trigger")
    + "CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION public.refuse()",
    "trigger": REFUSES.format("trigger")
    + "CREATE TRIGGER refuse BEFORE DELETE ON pipehandler.delivery FOR EACH ROW WHEN (OLD.recipient = '1@example.com')"
    " EXECUTE FUNCTION public.refuse()",
}
"""What an application or an administrator may have added that keeps the first of some days, or deliveries of it."""


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_a_day_that_cannot_be_dropped_stops_nothing(own_database: Database, what: str) -> None:
    """Other days are dropped, and what is removed row by row is; the command reports the reason. After a day the mail of
    that day goes row by row."""
    database = own_database
    for number, days in ((1, 10), (2, 9), (3, 8)):
        deliver(database, numbered(number), f"{number}@example.com")
        make_older(database, days)
    deliver(database, numbered(4), "4@example.com")
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 h'")
    database.execute(IN_THE_WAY[what].format(leaf=partition("message", today() - timedelta(days=10))))
    drops = what in ("view", "foreign key")
    total: expiry.Counts = expiry.Counts()
    with opened(database, "upkeep") as store:

        def once() -> None:
            for counts in expiry.expire(store, ()):
                total.update(counts)

        if what == "trigger":
            once()
        else:
            with pytest.raises(StoreError, match="cannot be removed: cannot drop" if drops else "refused"):
                once()
        if drops:
            assert (total["days"], recipients(database)) == (2, ["1@example.com"])
            database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '25 h'")
            with pytest.raises(StoreError):
                once()
            assert recipients(database) == (["1@example.com"] if what == "foreign key" else [])
        elif what == "trigger":
            assert (total["days"], recipients(database)) == (3, ["1@example.com"])
        else:
            assert recipients(database) == ["1@example.com", "2@example.com", "3@example.com"]
    assert "4@example.com" not in recipients(database)


def test_no_partition_for_tomorrow(database: Database) -> None:
    """`check` names the missing partition, and the command that creates it; afterwards it has no such finding."""
    assert missing_partitions(database) == []
    drop_day(database, today() + timedelta(days=1))
    assert [each.what[:44] for each in missing_partitions(database)] == ["the tables have no partitions for tomorrow ("]
    drop_day(database, today())
    assert [each.what[:41] for each in missing_partitions(database)] == ["the tables have no partitions for today ("]
    run(database)
    assert missing_partitions(database) == []


def test_mail_arrives_while_a_day_waits_to_be_dropped(database: Database) -> None:
    """A reader keeps the partitions in use: the day stays until the next run, and mail is delivered before the reader
    ends."""
    deliver(database, numbered(1))
    day = make_older(database, 9)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    with psycopg.connect(database.admin) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("SELECT count(*) FROM pipehandler.message")
        running = pool.submit(run, database)
        assert [stored.duplicate for stored in deliver(database, numbered(2))] == [False]
        assert running.result(60) == {}
        assert day in partitions(database)
        reader.rollback()
    assert run(database) == {"days": 1, "deliveries": 1}
    assert days_of(database, "raw_message") == [today()]


def test_interrupted_between_the_partitions_and_the_deliveries(every_database: Database) -> None:
    """A run that ends when the partitions are dropped leaves deliveries that nothing shows; mail that comes again is still
    a duplicate and not stored; the next run removes them."""
    (first,) = deliver(every_database)
    day = make_older(every_database, 9)
    every_database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    assert every_database.value("SELECT pipehandler.drop_day(%s)", day) is True
    assert every_database.value("SELECT count(*) FROM pipehandler.inbox") == 0
    assert every_database.value("SELECT incomplete FROM pipehandler.data_status()") == 0
    assert deliver(every_database) == [first._replace(duplicate=True)]
    assert days_of(every_database, "message") == []
    assert run(every_database) == {"deliveries": 1}
    assert [stored.duplicate for stored in deliver(every_database)] == [False]


def test_partitions_that_an_operator_dropped(database: Database) -> None:
    """Mail whose day was dropped by hand and that comes again is stored again, for its delivery: nothing is missing."""
    (first,) = deliver(database)
    day = make_older(database, 9)
    drop_day(database, day)
    assert database.value("SELECT incomplete FROM pipehandler.data_status()") == 1
    assert deliver(database) == [first]
    assert whole(database) == [("user@example.com", PICTURE, b"GIF")]
    assert days_of(database, "delivery") == [today()]


@pytest.mark.parametrize(
    "loss", ["DELETE FROM pipehandler.raw_message", "UPDATE pipehandler.attachment SET content = NULL"]
)
def test_repaired_on_its_day(database: Database, loss: str) -> None:
    """What a restored table lacks is stored again on the day of its delivery."""
    (first,) = deliver(database)
    day = make_older(database, 9)
    database.execute(loss)
    assert deliver(database) == [first]
    assert days_of(database, "message") == days_of(database, "raw_message") == [day]
    assert whole(database) == [("user@example.com", PICTURE, b"GIF")]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize(
    "call",
    [
        "drop_day('2020-02-02')",
        "remove_deliveries(ARRAY(SELECT id FROM pipehandler.delivery))",
        "remove_lease((SELECT lease FROM pipehandler.address))",
        "remove_unreferenced(ARRAY[current_date], ARRAY[(SELECT id FROM pipehandler.message)])",
    ],
)
def test_isolation(database: Database, isolation: str, call: str) -> None:
    """With the snapshot of an earlier statement a removal would not see that its message was just delivered again."""
    database.execute("SELECT pipehandler.lease_address('user@example.com')")
    deliver(database)
    with psycopg.connect(database.admin) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        with pytest.raises(InvalidTransactionState):
            connection.execute(f"SELECT pipehandler.{call}")
    assert len(whole(database)) == 1


def test_message_removed_by_hand(every_database: Database) -> None:
    """A message goes with its bytes and attachments, on its day only; one that has deliveries stays."""
    deliver(every_database, PICTURE, "a@example.com")
    make_older(every_database, 3)
    deliver(every_database, PICTURE, "b@example.com")
    with pytest.raises(ForeignKeyViolation, match="still has deliveries"):
        every_database.execute("DELETE FROM pipehandler.message")
    every_database.execute("DELETE FROM pipehandler.delivery WHERE recipient = 'a@example.com'")
    every_database.execute("DELETE FROM pipehandler.message WHERE day < %s", today())
    for table in KEYS:
        assert days_of(every_database, table) == [today()]


READS = {
    "deliveries_after": "SELECT FROM pipehandler.deliveries_after('')",
    "of a recipient": "SELECT FROM pipehandler.deliveries_after('', 'user@example.com')",
    "inbox_page": "SELECT FROM pipehandler.inbox_page(%(key)s)",
    "search": 'SELECT FROM pipehandler.inbox_page(%(key)s, wanted => \'{"terms": [{"in": "any", "pattern": "x"}]}\')',
    "inbox_after": "SELECT FROM pipehandler.inbox_after(%(key)s, '')",
    "inbox_message": "SELECT FROM pipehandler.inbox_message(%(key)s, %(delivery)s)",
    "inbox_attachment": "SELECT pipehandler.inbox_attachment(%(key)s, %(delivery)s, 1)",
    "inbox_attachments": "SELECT FROM pipehandler.inbox_attachments(%(key)s, %(delivery)s, '{1,2}')",
    "inbox_raw": "SELECT pipehandler.inbox_raw(%(key)s, %(delivery)s)",
    "inbox_of": "SELECT FROM pipehandler.inbox_of(%(key)s)",
    "view with its day": "SELECT subject FROM pipehandler.inbox WHERE day = %(day)s",
    "remove_deliveries": "SELECT pipehandler.remove_deliveries(ARRAY[%(delivery)s])",
    "renew": "SELECT pipehandler.renew(ARRAY[%(delivery)s])",
}


@pytest.mark.parametrize("read", READS)
def test_planning_visits_one_partition(one_of_many: tuple[Database, dict[str, Any]], read: str) -> None:
    """With mail on one of many days, a plan has the partition of that day and no others: those that a transaction has
    looked into are locked until its end."""
    database, values = one_of_many
    with psycopg.connect(database.admin) as connection:
        connection.execute(READS[read], values)
        rows = connection.execute(
            "SELECT DISTINCT l.relation::regclass::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE l.pid = pg_backend_pid() AND c.relispartition AND c.relkind = 'r'"
        ).fetchall()
        connection.rollback()
    assert {name[-8:] for (name,) in rows} == {f"{values['day']:%Y%m%d}"}


@pytest.fixture(scope="module")
def one_of_many(servers: Any) -> Iterator[tuple[Database, dict[str, Any]]]:
    """A database with forty days, and an inbox with one message."""
    with Database.fresh(servers(VERSION)) as database:
        key = bytes(range(32))
        database.execute(
            "SELECT pipehandler.set_web_domains(jsonb_build_array(jsonb_build_object('domain', 'example.com', 'max_ttl', 86400,"
            " 'max_life', 86400, 'grace', 60, 'held', 60, 'delimiter', '+', 'reserved_names', '[]'::jsonb,"
            " 'max_messages', 100, 'max_octets', 1000000, 'max_opened_per_hour', 10, 'max_inboxes', 10)))"
        )
        database.execute("SELECT pipehandler.open_inbox(%b, 'example.com', 'user', interval '1 h')", key)
        database.execute("SELECT pipehandler.create_days(39)")
        (stored,) = deliver(database, PICTURE, "user@example.com")
        yield database, {"key": key, "delivery": stored.delivery, "day": today()}


def test_ingest_opens_one_partition(one_of_many: tuple[Database, dict[str, Any]]) -> None:
    """A delivery, a duplicate and another recipient's copy lock the partitions of today and no others, however many
    there are, also when their statements have been planned before."""
    database, _ = one_of_many
    with psycopg.connect(database.admin) as connection:
        for number in range(8):
            ingest(connection, 100 + number, "user@example.com")
            connection.commit()
        for recipient in ("user@example.com", "user@example.com", "other@example.com"):
            ingest(connection, 100, recipient)
        ingest(connection, 200, "user@example.com")
        rows = connection.execute(
            "SELECT DISTINCT right(c.relname, 8) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE l.pid = pg_backend_pid() AND c.relispartition AND c.relkind = 'r'"
        ).fetchall()
        connection.rollback()
    assert rows == [(f"{today():%Y%m%d}",)]
