"""Faults of a PostgreSQL server: each is a context manager, and the fault is over at its exit."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import LiteralString

import psycopg
from harness.database import Database

DISK = 1024
"""Megabytes of the server's file system, which is filled."""

Trouble = Callable[[Database], AbstractContextManager[None]]


@contextmanager
def killed(database: Database) -> Iterator[None]:
    """The server and all its sessions die by SIGKILL."""
    database.server.stop(signal.SIGKILL)
    yield
    database.server.start()


@contextmanager
def shut_down(database: Database) -> Iterator[None]:
    """An operator stops it (fast shutdown)."""
    database.server.stop()
    yield
    database.server.start()


@contextmanager
def frozen(database: Database) -> Iterator[None]:
    """It accepts connections, and stays silent."""
    database.server.freeze()
    yield
    database.server.thaw()


@contextmanager
def _changed(database: Database, change: str, back: str) -> Iterator[None]:
    database.server.psql(database.name, change)
    database.server.reload()
    yield
    database.server.psql(database.name, back)
    database.server.reload()


def read_only(database: Database) -> AbstractContextManager[None]:
    """25006, as after a fail-over."""
    name = "default_transaction_read_only"
    return _changed(database, f"ALTER SYSTEM SET {name} = on", f"ALTER SYSTEM RESET {name}")


def role_limit(database: Database) -> AbstractContextManager[None]:
    """53300: the role may have no more connections."""
    limit = "ALTER ROLE pipehandler CONNECTION LIMIT"
    return _changed(database, f"{limit} 0", f"{limit} -1")


@contextmanager
def out_of_connections(database: Database) -> Iterator[None]:
    """53300: all connections that a role without privileges may have are taken, including those of handlers and
    workers."""
    missing = """SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)
                      - (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'taken') FROM pg_settings
                  WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"""
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('pipehandler', 'worker')"
    with ExitStack() as taken:
        until = time.monotonic() + 60
        while int(database.server.psql("postgres", missing)) > 0:
            try:
                taken.enter_context(psycopg.connect(with_password(database), application_name="taken"))
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                database.server.psql("postgres", end)
                time.sleep(0.02)
        yield


def with_password(database: Database) -> str:
    """The conninfo of the handler's role, for a server that asks for its password."""
    return f"{database.conninfo} password=secret"


@contextmanager
def disk_full(database: Database) -> Iterator[None]:
    """53100: the server's file system is completely full."""
    ballast = database.server.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(piece))
    try:
        yield
    finally:
        ballast.unlink()
    database.server.revive()


@contextmanager
def no_room_for_wal(database: Database) -> Iterator[None]:
    """The disk is full when the next segment of the write-ahead log is due: the server panics, and cannot recover."""
    with disk_full(database):
        with suppress(RuntimeError):  # the panic
            for _ in range(2 * DISK):
                emit = "SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))"
                database.server.psql("postgres", emit)
        yield


@contextmanager
def _held(database: Database, statement: LiteralString) -> Iterator[None]:
    """A transaction that has run `statement` and does not end for a while."""
    with psycopg.connect(database.admin) as other:
        other.execute(statement)
        yield
        other.rollback()


def locked(database: Database) -> AbstractContextManager[None]:
    """55P03: a session holds a lock on the table longer than statement_timeout."""
    return _held(database, "LOCK TABLE pipehandler.delivery")


def migrating(database: Database) -> AbstractContextManager[None]:
    """A migration changes a table in a long transaction."""
    return _held(database, "ALTER TABLE pipehandler.raw_message ADD COLUMN note text")


def schema_renamed(database: Database) -> AbstractContextManager[None]:
    """3F000: the schema has another name for the moment."""
    return _changed(database, "ALTER SCHEMA pipehandler RENAME TO parked", "ALTER SCHEMA parked RENAME TO pipehandler")


def function_dropped(database: Database) -> AbstractContextManager[None]:
    """42883: a migration outside a transaction has dropped the function, and has not created the new one yet."""
    function = database.value("SELECT pg_get_functiondef('pipehandler.ingest'::regproc)")
    grants = (
        "REVOKE ALL ON FUNCTION pipehandler.ingest FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION pipehandler.ingest TO pipehandler_ingest"
    )
    return _changed(database, "DROP FUNCTION pipehandler.ingest", f"{function}; {grants}")


def revoked(database: Database) -> AbstractContextManager[None]:
    """42501: the role may not call the function."""
    right = "EXECUTE ON FUNCTION pipehandler.ingest"
    return _changed(database, f"REVOKE {right} FROM pipehandler_ingest", f"GRANT {right} TO pipehandler_ingest")


def role_gone(database: Database) -> AbstractContextManager[None]:
    """28P01, 28000: the role does not exist."""
    return _changed(database, "ALTER ROLE pipehandler RENAME TO parked", "ALTER ROLE parked RENAME TO pipehandler")


def wrong_password(database: Database) -> AbstractContextManager[None]:
    """28P01: the password was changed on the server first."""
    change = "ALTER ROLE pipehandler PASSWORD"
    return _changed(database, f"{change} 'other'", f"{change} 'secret'")


@contextmanager
def database_gone(database: Database) -> Iterator[None]:
    """3D000: the database does not exist."""
    _rename_database(database, database.name, "parked")
    yield
    _rename_database(database, "parked", database.name)


@contextmanager
def not_migrated(database: Database) -> Iterator[None]:
    """3F000: the database is new, and not migrated yet."""
    with database_gone(database):
        database.server.psql("postgres", f"CREATE DATABASE {database.name}")
        yield
        database.server.psql("postgres", f"DROP DATABASE {database.name} WITH (FORCE)")


def _rename_database(database: Database, old: str, new: str) -> None:
    server = database.server
    server.psql("postgres", f"ALTER DATABASE {old} ALLOW_CONNECTIONS false")
    until = time.monotonic() + 10
    while True:
        server.psql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old}'")
        try:
            server.psql("postgres", f"ALTER DATABASE {old} RENAME TO {new}")
        except RuntimeError:
            if time.monotonic() > until:
                raise
        else:
            break
    server.psql("postgres", f"ALTER DATABASE {new} ALLOW_CONNECTIONS true")


SAMPLE: tuple[Trouble, ...] = (killed, read_only, role_limit, disk_full, schema_renamed)
TROUBLES: tuple[Trouble, ...] = (
    *SAMPLE,
    locked,
    shut_down,
    frozen,
    out_of_connections,
    no_room_for_wal,
    migrating,
    function_dropped,
    not_migrated,
    revoked,
    role_gone,
    wrong_password,
    database_gone,
)

ONLY_NEW: tuple[Trouble, ...] = (role_limit, role_gone, wrong_password)
"""Faults that do not affect an existing connection."""
