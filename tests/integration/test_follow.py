"""`pipehandler.follow`, the stream in Python: woken when mail is stored, for as long as needed, across a restart of the
server."""

import logging
import signal
from contextlib import closing

import psycopg
import pytest
from harness.database import Database
from harness.following import waiting
from harness.service import wait_until
from harness.stream import Coming, announce, ingest, stored, writing

import pipehandler
from pipehandler.store.errors import StoreError

LONG = 600.0
"""Seconds between two polls: a delivery seen earlier was woken."""


def reader(database: Database) -> str:
    """How an application connects."""
    return database.server.conninfo(database.name, user="reader")


def test_five_lines(database: Database) -> None:
    """An application needs five lines, and resumes at its saved cursor."""
    wanted = [stored(database, number) for number in range(3)]
    seen, saved = [], ""
    for delivery in pipehandler.follow(reader(database), cursor=saved):
        seen.append((delivery.id, delivery.subject))
        saved = delivery.cursor
        if len(seen) == 2:
            break
    assert seen == [(wanted[0], "one"), (wanted[1], "one")]
    with closing(pipehandler.follow(reader(database), cursor=saved)) as stream:
        assert next(stream).id == wanted[2]


def test_the_connection_ends_with_the_stream(database: Database) -> None:
    """Closing the stream closes its connection."""
    stored(database, 1)
    stream = pipehandler.follow(f"{reader(database)} application_name=closing")
    next(stream)
    there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
    assert database.value(there) == 1
    stream.close()
    wait_until(lambda: database.value(there) == 0)


def test_woken(database: Database) -> None:
    """A delivery with a notification is seen at once, though the next poll is far away."""
    coming = Coming(pipehandler.follow(reader(database), "now", poll=LONG))
    wait_until(lambda: waiting(database))
    wanted = stored(database, 1)
    announce(database)
    assert coming.next() == wanted


def test_polls_where_nobody_tells(database: Database) -> None:
    """Without a notification the next poll finds it."""
    coming = Coming(pipehandler.follow(reader(database), "now", poll=0.3))
    wait_until(lambda: waiting(database))
    wanted = stored(database, 1)
    assert coming.next() == wanted


def test_what_waits_for_an_older_transaction(database: Database) -> None:
    """A delivery that must wait for an older transaction is seen a moment after that has ended, though nothing notifies
    of its end."""
    with writing(database) as older:
        older.execute("SELECT pg_current_xact_id()")
        wanted = stored(database, 1)
        coming = Coming(pipehandler.follow(reader(database), poll=LONG))
        wait_until(lambda: waiting(database))
        assert not coming.there
        older.rollback()
        assert coming.next() == wanted


def test_many_at_once(database: Database) -> None:
    """More deliveries than one fetch returns come in order, each once."""
    with writing(database) as connection:
        for number in range(3):
            ingest(connection, number, *(f"{each}@example.com" for each in range(83)))
        connection.commit()
    wanted = [row.id for row in database.rows("SELECT id FROM pipehandler.delivery ORDER BY xid, id")]
    with closing(pipehandler.follow(reader(database))) as stream:
        assert [next(stream).id for _ in wanted] == wanted


def test_filters(database: Database) -> None:
    """A recipient, in upper or lower case, or a lease selects the deliveries."""
    lease = database.value("SELECT lease FROM pipehandler.lease_address('a@example.com')")
    stored(database, 1, "b@example.com")
    wanted = stored(database, 2, "a+x@example.com")
    with closing(pipehandler.follow(reader(database), recipient="A+X@example.com")) as stream:
        assert next(stream).id == wanted
    with closing(pipehandler.follow(reader(database), lease=lease)) as stream:
        assert next(stream).extension == "x"


def test_a_restart(own_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The stream resumes where it was after a restart of the server, and after a crash; the outage is logged once."""
    caplog.set_level(logging.WARNING, "pipehandler.store.stream")
    coming = Coming(pipehandler.follow(reader(own_database), poll=LONG), 3)
    for number, how in enumerate((signal.SIGINT, signal.SIGKILL, None)):
        wanted = stored(own_database, number)
        announce(own_database)
        assert coming.next() == wanted
        if how:
            wait_until(lambda: waiting(own_database))
            own_database.server.stop(how)
            own_database.server.start()
    reported = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert reported == ["the database is away", "the database is back"] * 2


def test_a_standby(own_database: Database) -> None:
    """LISTEN is impossible on a standby, so it is polled; a cursor from its primary, which is ahead of it, is not an
    error there."""
    server = own_database.server
    with server.standby(server.folder.parent / "standby") as standby:
        conninfo = standby.conninfo(own_database.name, user="reader")
        coming = Coming(pipehandler.follow(conninfo, poll=0.1))
        wanted = stored(own_database, 1)
        assert coming.next() == wanted
        ahead = f"SELECT * FROM pipehandler.deliveries_after('{1 << 60}-1')"
        with psycopg.connect(conninfo) as connection:
            assert connection.execute(ahead).fetchall() == []


@pytest.mark.parametrize(
    ("conninfo", "cursor", "reported"),
    [
        ("host=/nowhere dbname=mail", "", "connection"),
        ("what", "", "not a libpq connection string"),
        ("{handler}", "", "permission denied"),
        ("{reader}", "x-y", "invalid cursor"),
        ("{reader}", f"{1 << 60}-1", "from another cluster"),
        ("{empty}", "", "does not exist"),
    ],
)
def test_wrong_from_the_start(database: Database, conninfo: str, cursor: str, reported: str) -> None:
    """An error that waiting cannot fix is raised at once, and names its cause."""
    known = {"handler": database.conninfo, "reader": reader(database), "empty": database.server.conninfo()}
    with pytest.raises(StoreError, match=reported):
        next(pipehandler.follow(conninfo.format(**known), cursor))


def test_a_right_that_is_taken_away(database: Database) -> None:
    """A stream that has lost its right to read ends with the reason."""
    stored(database, 1)
    stream = pipehandler.follow(reader(database), poll=0.1)
    next(stream)
    database.execute("REVOKE EXECUTE ON FUNCTION pipehandler.deliveries_after FROM pipehandler_reader")
    with pytest.raises(StoreError, match="permission denied"):
        next(stream)


def test_what_the_package_offers() -> None:
    """The package exports what it lists, and raises for any other name."""
    assert all(getattr(pipehandler, name) for name in pipehandler.__all__)
    assert set(pipehandler.__all__) <= set(dir(pipehandler))
    with pytest.raises(pipehandler.StoreError):
        next(pipehandler.follow("host=127.0.0.1 port=1"))
    with pytest.raises(AttributeError, match="no attribute 'followed'"):
        pipehandler.followed  # noqa: B018 # the access is what raises
