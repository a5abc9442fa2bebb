"""The server: PostgreSQL is killed, full, locked, under repair, replaced by its standby, while mail comes in over SMTP.

Each trouble is made on a real server and lasts a moment. A delivery started inside it must be deferred, and the same
message delivered again afterwards must be stored; the load from Postfix goes on all the time, and is checked at the end.
"""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
from real import account
from real.database import Database
from real.handler import Handler
from real.mailhost import MailHost
from real.postgresql import FAST, PostgreSQL

from .ledger import Ledger, Row, Scale
from .load import Load, mail_host

_DISK = 1024
_HASTY: dict[str, dict[str, object]] = {
    "database": {"connect_timeout": 2, "statement_timeout": 1},
    "limits": {"deadline": 20},
}
_SETTINGS = {**FAST, "max_connections": "30", "min_wal_size": "32MB", "max_wal_size": "64MB", "shared_buffers": "16MB"}

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
    """It takes connections, and says nothing."""
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
    """53300: all connections are taken, and those that become free are taken as well."""
    with ExitStack() as taken:
        for _ in range(1000):
            alone = _nobody_else(database)
            try:
                taken.enter_context(psycopg.connect(_with_password(database)))
            except psycopg.OperationalError:
                if alone and _nobody_else(database):  # nobody held one whose end would make room
                    break
                time.sleep(0.02)
        else:
            raise RuntimeError("the connections could not all be taken")
        yield


def _nobody_else(database: Database) -> bool:
    """Whether the handler's role holds no connection but those that are idle here."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler' AND application_name = 'pipehandler'"
    return database.server.psql("postgres", busy).strip() == "0"


def _with_password(database: Database) -> str:
    return f"{database.conninfo} password=secret"


@contextmanager
def disk_full(database: Database) -> Iterator[None]:
    """53100: not one octet is left in the server's file system."""
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
            for _ in range(2 * _DISK):
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
    """55P03: somebody holds the table longer than statement_timeout."""
    return _held(database, "LOCK TABLE pipehandler.delivery")


def migrating(database: Database) -> AbstractContextManager[None]:
    """A migration changes a table in a long transaction."""
    return _held(database, "ALTER TABLE pipehandler.raw_message ADD COLUMN note text")


def schema_renamed(database: Database) -> AbstractContextManager[None]:
    """3F000: the schema is somewhere else for the moment."""
    return _changed(database, "ALTER SCHEMA pipehandler RENAME TO parked", "ALTER SCHEMA parked RENAME TO pipehandler")


def function_dropped(database: Database) -> AbstractContextManager[None]:
    """42883: a migration that is no transaction has dropped the function, and has not made the next one yet."""
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
    """28P01, 28000: there is no such role."""
    return _changed(database, "ALTER ROLE pipehandler RENAME TO parked", "ALTER ROLE parked RENAME TO pipehandler")


def wrong_password(database: Database) -> AbstractContextManager[None]:
    """28P01: the password was changed on the server first."""
    change = "ALTER ROLE pipehandler PASSWORD"
    return _changed(database, f"{change} 'other'", f"{change} 'secret'")


@contextmanager
def database_gone(database: Database) -> Iterator[None]:
    """3D000: there is no such database."""
    _rename_database(database, database.name, "parked")
    yield
    _rename_database(database, "parked", database.name)


@contextmanager
def not_migrated(database: Database) -> Iterator[None]:
    """3F000: the database is new, and nobody has migrated it yet."""
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


_SAMPLE: tuple[Trouble, ...] = (killed, read_only, role_limit, disk_full, locked, schema_renamed)
_TROUBLES: tuple[Trouble, ...] = (
    *_SAMPLE,
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


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, which can be filled."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}m,mode=0755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


class _Witness:
    """One delivery inside each trouble, seen from near: it must be deferred, and stored when the trouble is over."""

    def __init__(self, database: Database, row: Row, ledger: Ledger) -> None:
        self.database, self.row, self.ledger = database, row, ledger

    def see(self, trouble: Trouble) -> None:
        """Make the trouble, and deliver a message in it and after it."""
        self.row.points += 1
        recipient = f"witness{self.row.points}@example.com"
        raw = f"Message-ID: <{recipient}>\nSubject: {trouble.__name__}\n\n{random.randbytes(500_000).hex()}\n".encode()
        self.ledger.send(raw, recipient)
        with trouble(self.database):
            self._deliver(raw, recipient, trouble.__name__, 75)
        self._deliver(raw, recipient, f"after {trouble.__name__}", 0)

    def _deliver(self, raw: bytes, recipient: str, when: str, wanted: int) -> None:
        times = _HASTY if wanted else {}
        with account.folder("pipehandler-") as folder:  # one that knew of the outage would not even try
            handler = Handler(folder, _with_password(self.database), **times)
            ended = handler.deliver(raw, recipient)
            self.row.statuses[ended.status] += 1
            if ended.status != wanted:
                self.row.note(f"{when}: status {ended.status}, {handler.log_lines()}")


def _troubles(row: Row, host: MailHost, folder: Path, scale: Scale) -> None:
    """Every trouble while mail comes in; at full scale again and again, with a crash after each."""
    with PostgreSQL(folder / "server", 16, _SETTINGS).start() as server, Database.fresh(server) as database:
        database.execute("ALTER ROLE pipehandler PASSWORD 'secret'")
        hba = server.data / "pg_hba.conf"
        hba.write_text(f"local all pipehandler scram-sha-256\n{hba.read_text()}")
        server.reload()
        host.handler.configure(_with_password(database), database={"connect_timeout": 2, "statement_timeout": 5})
        with Load(host, 2_000 if scale is Scale.FULL else 30) as load:
            witness = _Witness(database, row, load.ledger)
            if scale is Scale.SHORT:
                for trouble in _SAMPLE:
                    witness.see(trouble)
            while scale is Scale.FULL and (load.going_on or row.points < 4 * len(_TROUBLES) or len(host.queue()) > 50):
                for trouble in _TROUBLES:
                    for each in (trouble, killed):
                        witness.see(each)
                        time.sleep(random.uniform(2, 4))  # Postfix tries again, and deliveries are under way
        host.drain(300)
        load.ledger.check(database, row)


def _fail_over(row: Row, host: MailHost, folder: Path, scale: Scale) -> None:
    """The primary dies in the middle of a load, and its standby is promoted; then again, with a new standby."""
    primary = PostgreSQL(folder / "0", 16, FAST).start()
    with ExitStack() as servers:
        servers.enter_context(primary)
        with Database.fresh(primary) as database, Load(host, 400 if scale is Scale.FULL else 15) as load:
            for number in range(1, 9 if scale is Scale.FULL else 2):
                standby = servers.enter_context(primary.standby(folder / str(number)))
                primary.synchronous()
                both = f"host={primary.folder},{standby.folder} port={primary.port},{standby.port}"
                host.handler.configure(
                    f"{both} dbname={database.name} user=pipehandler target_session_attrs=read-write",
                    database={"connect_timeout": 2},
                )
                time.sleep(random.uniform(2, 6) if scale is Scale.FULL else 1)
                primary.stop(signal.SIGKILL)
                standby.promote()
                database.move(standby)
                primary = standby
                row.points += 1
            load.finish()
            host.drain(300)
            load.ledger.check(database, row)


def run(scale: Scale) -> Row:
    """The campaign of the server."""
    row = Row("server")
    with account.folder("pipehandler-pg-") as folder, _small_disk(folder), mail_host(row) as host:
        _troubles(row, host, folder, scale)
    with account.folder("pipehandler-pg-") as folder, mail_host(row) as host:
        _fail_over(row, host, folder, scale)
    return row
