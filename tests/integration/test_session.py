"""The settings of a session: those of the database and of the role change nothing, and a pooler that drops ours is
detected."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from harness.console import Console, Done
from harness.database import Database
from harness.handler import Handler
from harness.pgbouncer import pgbouncer
from harness.proxy import Proxy, proxy
from harness.submission import MESSAGE, submission

from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import migrate
from pipehandler.store.session import SETTINGS
from pipehandler.store.stream import follow

UNUSUAL = {
    "search_path": "public",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "row_security": "off",
    "client_min_messages": "error",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "idle_in_transaction_session_timeout": "1",
    # These are handled by the functions, or by the timeouts of each session.
    "statement_timeout": "1",
    "lock_timeout": "1",
    "backslash_quote": "on",
    "client_encoding": "LATIN1",
    "escape_string_warning": "off",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "xmlbinary": "hex",
    "check_function_bodies": "off",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit_above_cost": "0",
    "work_mem": "64kB",
    "lc_monetary": "C",
    "default_text_search_config": "pg_catalog.simple",
    "gin_fuzzy_search_limit": "1",
    "from_collapse_limit": "1",
    "application_name": "",
}


def spoil(database: Database, settings: dict[str, str], scope: str) -> None:
    """Set these for the whole database, or for each role that connects."""
    # From another database: some of them would end these very statements.
    with psycopg.connect(database.server.conninfo(), autocommit=True) as connection:
        for name, value in settings.items():
            # search_path is a list, which a literal would make one name.
            to = value if name in ("search_path", "DateStyle") else f"'{value}'"
            for role in ("pipehandler", "upkeep", "reader", "postgres"):
                where = f"ROLE {role} IN DATABASE" if scope == "role" else "DATABASE"
                connection.execute(f"ALTER {where} {database.name} SET {name} = {to}".encode())


@pytest.fixture
def wire(database: Database) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with proxy(database.server.port) as running:
        yield running


def followed(database: Database, count: int) -> list[str]:
    """The recipients of the first deliveries in the stream."""
    with closing(follow(database.server.conninfo(database.name, user="reader"))) as stream:
        return [each.recipient for each in itertools.islice(stream, count)]


@pytest.mark.parametrize("scope", ["database", "role"])
def test_unusual_settings(database: Database, console: Console, handler: Handler, scope: str) -> None:
    """With all of them at once, the output of every command is unchanged, and mail is stored exactly once."""
    console.run("--conninfo", database.admin, "address", "add", "user@example.com", "--ttl", "1d")
    handler.deliver(MESSAGE)
    (message,) = database.rows("SELECT message::text AS id FROM pipehandler.delivery")

    def everything_said() -> list[Done]:
        return [
            console.run(*command)
            for command in (
                ("list", "--json"),
                ("list", "--since", "2020-01-01"),
                ("show", message.id),
                ("show", "--json", message.id),
                ("raw", message.id),
                ("quarantine", "list"),
                ("reparse", "--all", "--dry-run"),
                ("expire", "--dry-run"),
                ("remove", "--dry-run", "--recipient", "*", "--stored-since", "1h"),
                ("remove", "--dry-run", message.id[:8]),
                ("--conninfo", database.admin, "migrate"),
                ("--conninfo", database.admin, "address", "list", "--json"),
                ("--conninfo", database.admin, "metrics"),
            )
        ]

    before = everything_said()
    spoil(database, UNUSUAL, scope)
    for one, other in zip(before, everything_said(), strict=True):
        assert (one.status, one.errors) == (0, "")
        if b"# HELP" in one.output:  # table sizes and times differ for other reasons
            assert b"pipehandler_database_up 1.0\n" in other.output
        else:
            assert other == one
    assert handler.deliver(MESSAGE).output.startswith("2.0.0 stored before ")
    assert handler.deliver(MESSAGE, "other@example.com").output.startswith("2.0.0 stored ")
    assert console.run("--conninfo", database.admin, "address", "add", "third@example.com", "--ttl", "1d").status == 0
    assert followed(database, 2) == ["user@example.com", "other@example.com"]


@pytest.mark.parametrize("name", UNUSUAL)
def test_one_unusual_setting(database: Database, name: str) -> None:
    """Each of them alone, on the database and on the role: mail is stored, read and followed as without it."""
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission())
    spoil(database, {name: UNUSUAL[name]}, "database")
    spoil(database, {name: UNUSUAL[name]}, "role")
    with closing(MessageStore(database.conninfo)) as store:
        assert [row.duplicate for row in store.ingest(submission())] == [True]
        assert [row.duplicate for row in store.ingest(submission(MESSAGE, "other@example.com"))] == [False]
    assert followed(database, 2) == ["user@example.com", "other@example.com"]


def test_a_command_waits_for_no_lock_for_long(database: Database, console: Console) -> None:
    """A session that locks a table does not hold up a command that reads: it gives up, and says why."""
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        done = console.run("list")
    assert done.status == EX_UNAVAILABLE
    assert "(SQLSTATE 55P03); another transaction holds a lock" in done.errors


def test_transaction_timeout(every_database: Database) -> None:
    """A limit on transactions (PostgreSQL 17) that a DBA sets ends neither a delivery, nor a lease, nor a migration."""
    database = every_database
    if not database.value("SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'"):
        assert database.server.version < 17
        return
    spoil(database, {"transaction_timeout": "1s"}, "role")
    for table in ("message", "address"):
        database.execute(
            f"CREATE FUNCTION public.slow_{table}() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_catalog.pg_sleep(1.2); RETURN NEW; END $$;"
            f"CREATE TRIGGER slow BEFORE INSERT ON pipehandler.{table} FOR EACH ROW EXECUTE FUNCTION public.slow_{table}()"
        )
    with closing(MessageStore(database.conninfo)) as store:
        assert [row.duplicate for row in store.ingest(submission())] == [False]
    with closing(MessageStore(database.admin)) as store:
        assert store.values("SELECT pg_catalog.current_setting('transaction_timeout')", of=str) == ["1s"]
        assert store.values("SELECT (pipehandler.lease_address('a@example.com')).lease", of=int) == [1]
        migrate(store)
        assert store.values("SELECT pg_catalog.current_setting('transaction_timeout')", of=str) == ["0"]


def shown(store: MessageStore) -> dict[str, str]:
    """The value of each setting in a session."""
    rows = store.rows(
        "SELECT name, pg_catalog.current_setting(name) AS value FROM unnest(%s::text[]) AS s (name)", [[*SETTINGS]]
    )
    return {row["name"]: row["value"] for row in rows}


def test_conninfo_does_not_contradict(database: Database) -> None:
    """Options of database.conninfo are kept, except those that the session sets."""
    conninfo = f"{database.conninfo} options='-c search_path=public -c work_mem=1MB -c DateStyle=German'"
    with closing(MessageStore(conninfo)) as store:
        assert shown(store) == SETTINGS
        assert store.values("SELECT pg_catalog.current_setting('work_mem')", of=str) == ["1MB"]


@pytest.mark.parametrize("scope", ["database", "role"])
def test_idle_session(database: Database, scope: str) -> None:
    """A session stays open between two messages, whatever idle_session_timeout is set to."""
    spoil(database, {"idle_session_timeout": "1"}, scope)
    with closing(MessageStore(database.conninfo)) as store:
        for number in range(2):
            assert [row.duplicate for row in store.ingest(submission(b"Subject: %d\n\nx" % number))] == [False]
            threading.Event().wait(0.05)
        assert shown(store) == SETTINGS


def test_ingest_leaves_no_setting(database: Database) -> None:
    """The function's setting for its own commit ends with the commit."""
    spoil(database, {"synchronous_commit": "off", "client_min_messages": "error"}, "database")
    shown = (
        "SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'client_min_messages') ORDER BY 1"
    )
    request = submission()
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        before = connection.execute(shown).fetchall()
        connection.execute(request.statement().encode(), request.arguments())
        assert (
            connection.execute(shown).fetchall()
            == before
            == [("client_min_messages", "error"), ("synchronous_commit", "off")]
        )


def test_no_setting_damages_a_function(database: Database) -> None:
    """The detection of damaged functions and views does not depend on session settings for the format of
    definitions."""
    objects = "SELECT object, digest FROM pipehandler.code_objects() ORDER BY object"
    with psycopg.connect(database.admin, autocommit=True) as connection:
        before = connection.execute(objects).fetchall()
        assert before
        for setting in (
            "quote_all_identifiers = on",
            "search_path = pipehandler",
            "timezone = 'Asia/Kathmandu'",
            "datestyle = German",
        ):
            connection.execute(f"SET {setting}".encode())
        assert connection.execute(objects).fetchall() == before
        assert connection.execute("SELECT damaged, unknown FROM pipehandler.code_status()").fetchall() == [([], [])]


@pytest.mark.parametrize("encoding", ["UTF8", "latin1", "auto"])
def test_conninfo_names_no_encoding(database: Database, encoding: str) -> None:
    """The operator cannot choose the client encoding: values are UTF-8, whatever conninfo contains."""
    with closing(MessageStore(f"{database.conninfo} client_encoding={encoding}")) as store:
        store.ingest(submission("Subject: Grüße 日本\n\nx".encode()))
    assert database.value("SELECT subject FROM pipehandler.message") == "Grüße 日本"


def test_direct_connection_costs_no_round_trip(database: Database, wire: Proxy) -> None:
    """All settings are sent with the connection: the first statement is the caller's."""
    with closing(MessageStore(wire.conninfo(database.conninfo))) as store:
        store.connect()
    wire.wait_for()
    assert {kind for kind in wire.kinds() if kind.startswith("F")} <= {"F", "Fp", "FX"}


@pytest.mark.parametrize("ignored", ["", "options"], ids=["refused", "dropped"])
def test_pooler(database: Database, folder: Path, ignored: str) -> None:
    """PgBouncer refuses `options`, or drops them: the session still has the settings and the timeouts."""
    # Its statement_timeout also ends the statement that sets another one.
    spoil(database, {**UNUSUAL, "statement_timeout": "30s"}, "role")
    with (
        pgbouncer(folder, database, ignore_startup_parameters=ignored, pool_mode="session") as conninfo,
        closing(MessageStore(conninfo, statement_timeout=7)) as store,
    ):
        assert [row.duplicate for row in store.ingest(submission())] == [False]
        assert shown(store) == SETTINGS
        assert store.values("SELECT pg_catalog.current_setting('statement_timeout')", of=str) == ["7s"]
