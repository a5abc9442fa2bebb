"""The connection itself: rows with types, and schemas of other versions."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from harness.database import Database

from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.health import Health, health


class Pair(NamedTuple):
    """Two columns, the second of which may be left out."""

    number: int
    text: str | None = None


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store for the owner of the schema."""
    opened = Store(database.admin)
    yield opened
    opened.close()


def test_rows(store: Store) -> None:
    """Columns are matched by name, whatever their order; a row without a class is a dict."""
    assert store.rows("SELECT 'a' AS text, 1 AS number", row=Pair) == [Pair(1, "a")]
    assert store.rows("SELECT 2 AS number", row=Pair) == [Pair(2)]
    assert store.rows("SELECT 1 AS number WHERE false", row=Pair) == []
    assert store.rows("SELECT %s::text AS text", ["a"]) == [{"text": "a"}]


def test_values(store: Store) -> None:
    """One column is converted."""
    assert store.values("SELECT generate_series(1, 3)", of=str) == ["1", "2", "3"]
    assert store.values("SELECT '\\x00ff'::bytea", of=bytes) == [b"\x00\xff"]


def test_timeouts_follow_the_deadline(store: Store) -> None:
    """An open connection gets the timeouts of each delivery: half of its remaining time, and half of that for a
    lock."""
    shown = "SELECT current_setting(name) FROM unnest(ARRAY['statement_timeout', 'lock_timeout']) AS s (name)"
    assert store.values(shown, of=str) == ["20s", "10s"]
    session = store.connect()
    for left, timeouts in ((5.0, ["2s", "1s"]), (0.0, ["1s", "500ms"]), (float("inf"), ["20s", "10s"])):
        store.remaining = lambda left=left: left  # type: ignore[misc]
        assert store.values(shown, of=str) == timeouts
    assert store.connect() is session


def test_parameters_of_the_connection(database: Database) -> None:
    """The time for all hosts is that of the configuration, less the time for resolving names; or the delivery's
    remaining time."""
    for left, seconds in ((float("inf"), {"6", "7"}), (4.5, {"3", "4"}), (0.0, {"2"})):
        opened = Store(database.admin, connect_timeout=7)
        opened.remaining = lambda left=left: left  # type: ignore[misc]
        found = opened.connect().info.get_parameters()
        opened.close()
        assert found["connect_timeout"] in seconds
        assert (found["tcp_user_timeout"], found["application_name"]) == ("7000", "pipehandler")
        assert (found["keepalives_idle"], found["keepalives_interval"]) == ("3", "1")
    opened = Store(f"{database.admin} application_name=mine tcp_user_timeout=1 keepalives_idle=9")
    found = opened.connect().info.get_parameters()
    opened.close()
    assert (found["tcp_user_timeout"], found["application_name"]) == ("1", "mine")
    assert (found["keepalives_idle"], found["keepalives_interval"]) == ("9", "1")


def test_wait(store: Store, database: Database) -> None:
    """A notification is reported once: one that arrives during the wait, and one that arrived with another
    statement."""
    store.listen()
    assert not store.wait(0)
    database.execute("NOTIFY pipehandler")
    assert store.wait(60)
    assert not store.wait(0)
    database.execute("NOTIFY pipehandler")
    assert not store.ended
    assert store.values("SELECT 1", of=int) == [1]
    assert store.wait(0)
    assert not store.wait(0)
    database.execute("NOTIFY another")
    assert not store.wait(0.1)


def test_announcement_that_nobody_reads(own_database: Database) -> None:
    """A server that hangs costs a second and the connection, and never an error; without a connection there is nothing
    to do."""
    with closing(Store(own_database.admin)) as store:
        store.announce()
        assert store.socket is None
        session = store.connect()
        store.announce()
        assert store.connect() is session
        own_database.server.freeze()
        try:
            store.announce()
            assert store.socket is None
        finally:
            own_database.server.thaw()


def test_error_is_ours(store: Store) -> None:
    """A statement that fails raises nothing of psycopg, and the connection can be used again."""
    for call in (store.rows, store.script, lambda statement: store.values(statement, of=int)):
        with pytest.raises(StoreError) as raised:
            call("SELECT 1 / 0")
        assert raised.value.sqlstate == "22012"
    assert store.values("SELECT 1", of=int) == [1]


def replace_health(database: Database, columns: str, values: str) -> None:
    """Install another version of the function health in the database."""
    database.execute("DROP FUNCTION pipehandler.health()")
    database.execute(
        f"CREATE FUNCTION pipehandler.health({columns}) LANGUAGE sql STABLE SET search_path = pg_catalog AS"
        f" $$ SELECT {values} $$"
    )


def test_health_of_another_schema(store: Store, database: Database) -> None:
    """A newer schema may report more, an older one less: both are read, so that `status` can name the difference."""
    columns = "OUT schema_version integer, OUT quarantined bigint, OUT oldest_quarantined timestamptz"
    replace_health(database, columns, "4, 0::bigint, NULL::timestamptz")
    assert health(store)._replace(replication=None, days_prepared=None) == Health(4, 0, None, None)
    more = f"{columns}, OUT oldest_expired timestamptz, OUT news text"
    replace_health(database, more, "99, 0::bigint, NULL::timestamptz, '2026-09-07T01:00Z'::timestamptz, 'x'")
    found = health(store)._replace(replication=None, days_prepared=None)
    assert found == Health(99, 0, None, datetime(2026, 9, 7, 1, tzinfo=UTC))


@pytest.mark.parametrize("seconds", [-3600, -6, 6, 3600])
def test_the_clock_of_this_host(store: Store, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """The difference of the clocks is measured, in either direction; on one host there is none."""
    assert health(store).clock_difference == 0
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - seconds)
    assert health(store).clock_difference == pytest.approx(seconds, abs=1)
