"""The equality of addresses never depends on the collation of the operating system, and duplicates from an earlier
change of it are reported and kept."""

from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress

import psycopg
import pytest
from harness import account, previous_release
from harness.database import Database
from harness.postgresql import DEBIAN, FAST, PostgreSQL
from harness.submission import submission
from psycopg import sql

from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import migrate

# Another ICU order: punctuation is ignored, and upper case sorts first.
_CHANGED = "en-US-u-ka-shifted-kf-upper"
_LOCALE = "daticulocale" if DEBIAN < 17 else "datlocale"

ADDRESSES = sorted(
    {
        f"{name}@{domain}"
        for name in (
            "anna.shop1",
            "annashop1",
            "Anna-shop1",
            "anna_shop1",
            "ben_news22",
            "ben-news.22",
            "dora-k",
            "dorak",
            "d.orak",
        )
        for domain in ("example.com", "ex-ample.com", "exam.ple.com", "EXAMPLE.org")
    }
)

TEXT = """
SELECT c.relname AS index, a.attname AS column
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_attribute a ON a.attrelid = i.indexrelid,
       LATERAL (SELECT (i.indcollation::oid[])[a.attnum - 1] AS oid) AS used
 WHERE c.relnamespace = 'pipehandler'::regnamespace AND used.oid <> 0 AND used.oid <> '"C"'::regcollation
"""


@pytest.fixture
def cluster() -> Iterator[PostgreSQL]:
    """A server whose databases may be damaged."""
    with account.folder("pipehandler-pg-") as folder, PostgreSQL(folder / str(DEBIAN), DEBIAN, FAST).start() as server:
        yield server


def icu(server: PostgreSQL, name: str) -> None:
    """An empty database that compares text with ICU."""
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"
            ).format(sql.Identifier(name))
        )


def change(server: PostgreSQL, name: str) -> None:
    """Replace the library behind the collation."""
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(f"UPDATE pg_database SET {_LOCALE} = %s WHERE datname = %s", [_CHANGED, name])
    server.stop()
    server.start()


def migrated(server: PostgreSQL, name: str) -> Database:
    """Migrate a database."""
    with closing(MessageStore(server.conninfo(name), statement_timeout=100)) as store:
        migrate(store)
    return Database(server, name)


def fill(database: Database, lease: bool = True, doubtful: bool = False) -> list[bool]:
    """Lease each address, and deliver one message to it; whether it was a duplicate, for each. doubtful: the indexes are
    damaged, so a delivery may be deferred: one index may have its duplicate, and another may not find it."""
    found = []
    with closing(MessageStore(database.admin)) as store:
        for address in ADDRESSES:
            if lease:
                with suppress(StoreError):  # it has one
                    store.script(f"SELECT pipehandler.lease_address('{address}')")
            with suppress(StoreError) if doubtful else nullcontext():
                (stored,) = store.ingest(submission(b"Subject: x\n\n" + address.encode(), address))
                found.append(stored.duplicate)
    return found


def test_after_the_change_of_a_collation(cluster: PostgreSQL) -> None:
    """After a change of the library no message is stored twice, each address is found, and the stream is complete."""
    icu(cluster, "mail")
    database = migrated(cluster, "mail")
    assert fill(database) == [False] * len(ADDRESSES)
    change(cluster, "mail")
    assert fill(database, lease=False) == [True] * len(ADDRESSES)
    assert database.value("SELECT count(*) FROM pipehandler.delivery WHERE lease IS NOT NULL") == len(ADDRESSES)
    for address in ADDRESSES:
        assert database.rows("SELECT pipehandler.lookup(%s)", address) == [("OK",)], address
        assert database.value("SELECT count(*) FROM pipehandler.deliveries_after('', %s)", address) >= 1, address
        with pytest.raises(psycopg.errors.UniqueViolation):
            database.execute("SELECT pipehandler.lease_address(%s)", address)


def test_what_was_doubled_before(cluster: PostgreSQL) -> None:
    """A database of the previous release, whose collation changed and led to duplicate mail and leases, is migrated:
    everything is kept, all duplicates are recorded, and no new ones arise."""
    with previous_release.database(cluster, "mail") as database:
        with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
            connection.execute(
                f"UPDATE pg_database SET datlocprovider = 'i', {_LOCALE} = 'en-US' WHERE datname = 'mail'"
            )
        cluster.stop()
        cluster.start()
        assert fill(database) == [False] * len(ADDRESSES)
        change(cluster, "mail")
        fill(database, doubtful=True)
        deliveries, leases = (
            database.value(f"SELECT count(*) FROM (SELECT * FROM pipehandler.{table} OFFSET 0) AS t")
            for table in ("delivery", "address")
        )
        assert min(deliveries, leases) > len(ADDRESSES)
        database = migrated(cluster, "mail")
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == deliveries
        assert database.value("SELECT count(*) FROM pipehandler.address") == leases
        doubled = {
            row.kind: row.n for row in database.rows("SELECT kind, count(*) AS n FROM pipehandler.doubled GROUP BY 1")
        }
        assert doubled["lease"] == leases - len(ADDRESSES)
        assert fill(database, lease=False).count(False) <= len(ADDRESSES)
        assert fill(database, lease=False) == [True] * len(ADDRESSES)


def test_every_index_is_in_the_order_of_octets(untouched: Database) -> None:
    """Each text column of each index has the collation C."""
    assert untouched.rows(TEXT) == []
    assert (
        untouched.value(
            "SELECT count(*) FROM pg_index i, unnest(i.indcollation::oid[]) AS c"
            " WHERE i.indrelid = 'pipehandler.delivery'::regclass AND c <> 0"
        )
        == 2
    )
