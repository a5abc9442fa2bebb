"""The server: PostgreSQL is killed, full, locked, under repair, replaced by its standby, while mail comes in over SMTP.

Each fault is made on a real server and lasts a moment. A delivery started during it must be deferred, and the same
message delivered again afterwards must be stored; the load from Postfix continues all the time, and is checked at the
end. A worker has its connection before the fault; afterwards it has to deliver again.
"""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.mailhost import MailHost
from harness.postgresql import FAST, PostgreSQL

from .ledger import Ledger, Mode, Row, Scale
from .load import Load, mail_host, service
from .pool import Pool, forget_outage, only_resident, pool
from .troubles import DISK, ONLY_NEW, SAMPLE, TROUBLES, Trouble, killed, with_password

_HASTY: dict[str, dict[str, object]] = {
    "database": {"connect_timeout": 2, "statement_timeout": 1},
    "limits": {"deadline": 20},
}
_SETTINGS = {**FAST, "max_connections": "30", "min_wal_size": "32MB", "max_wal_size": "64MB", "shared_buffers": "16MB"}
_LOAD = {Scale.SHORT: 12, Scale.THIN: 100, Scale.FULL: 2_000}
"""Messages that come in during the faults."""

_FAIL_OVERS = {Scale.SHORT: 1, Scale.THIN: 1, Scale.FULL: 8}

_BACK = 30.0
"""Seconds after a fault within which a worker has to deliver again."""


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A separate file system at `folder`, which can be filled."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m,mode=0755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


class _Witness:
    """Direct deliveries during each fault: they must be deferred, and stored when the fault is over."""

    def __init__(self, database: Database, handlers: Pool, row: Row, ledger: Ledger) -> None:
        self.database, self.handlers, self.row, self.ledger = database, handlers, row, ledger
        self._sent = 0

    def see(self, trouble: Trouble) -> None:
        """Make the fault, and deliver a message during and after it; and another one by a worker that had a
        connection."""
        self.row.points += 1
        conninfo = _conninfo(self.database, self.handlers.mode)
        with ExitStack() as stack:
            kept = None
            if self.handlers.mode is Mode.RESIDENT:
                kept = stack.enter_context(self.handlers.handler(conninfo, **_HASTY)), *self._message(trouble)
            raw, recipient = self._message(trouble)
            with trouble(self.database):
                if kept:
                    self._deliver(*kept, f"{trouble.__name__}, connected", 0 if trouble in ONLY_NEW else 75)
                with self.handlers.handler(conninfo, **_HASTY) as handler:
                    self._deliver(handler, raw, recipient, trouble.__name__, 75)
            if kept:
                self._deliver(*kept, f"after {trouble.__name__}, connected", 0, patience=_BACK)
            with self.handlers.handler(conninfo) as handler:
                self._deliver(handler, raw, recipient, f"after {trouble.__name__}", 0)

    def _message(self, trouble: Trouble) -> tuple[bytes, str]:
        self._sent += 1
        recipient = f"witness{self._sent}@example.com"
        raw = f"Message-ID: <{recipient}>\nSubject: {trouble.__name__}\n\n{random.randbytes(500_000).hex()}\n".encode()
        self.ledger.send(raw, recipient)
        return raw, recipient

    def _deliver(
        self, handler: Handler, raw: bytes, recipient: str, when: str, wanted: int, patience: float = 0
    ) -> None:
        until = time.monotonic() + patience
        while True:
            forget_outage(handler)
            ended = handler.deliver(raw, recipient)
            self.row.statuses[ended.status] += 1
            if ended.status == wanted:
                return
            if time.monotonic() > until:
                self.row.note(f"{when}: status {ended.status}, {handler.log_lines()[-3:]}")
                return


def _conninfo(database: Database, mode: Mode) -> str:
    """Kept connections have another name than those that are about to end."""
    return with_password(database) + (" application_name=worker" if mode is Mode.RESIDENT else "")


def _troubles(row: Row, host: MailHost, folder: Path, scale: Scale, mode: Mode) -> None:
    """Every fault while mail comes in; at full scale repeatedly, with a crash after each."""
    with PostgreSQL(folder / "server", 16, _SETTINGS).start() as server, Database.fresh(server) as database:
        database.execute("ALTER ROLE pipehandler PASSWORD 'secret'")
        hba = server.data / "pg_hba.conf"
        hba.write_text(f"local all pipehandler scram-sha-256\n{hba.read_text()}")
        server.reload()
        host.handler.configure(_conninfo(database, mode), database={"connect_timeout": 2, "statement_timeout": 5})
        with (
            service(host, mode),
            pool(mode, row, 2) as handlers,
            Load(host, _LOAD[scale]) as load,
        ):
            witness = _Witness(database, handlers, row, load.ledger)
            if scale.short:
                for trouble in SAMPLE if mode is Mode.COLD else SAMPLE[:3]:
                    witness.see(trouble)
            rounds = 2 if scale is Scale.FULL else 1
            while not scale.short and (
                load.going_on or row.points < 2 * rounds * len(TROUBLES) or len(host.queue()) > 50
            ):
                for trouble in TROUBLES:
                    for each in (trouble, killed):
                        witness.see(each)
                        time.sleep(random.uniform(2, 4))  # Postfix retries, and deliveries are in progress
            load.finish()
            host.drain(300)
        load.ledger.check(database, row)


def _fail_over(row: Row, host: MailHost, folder: Path, scale: Scale, mode: Mode) -> None:
    """The primary dies in the middle of a load, and its standby is promoted; then again, with a new standby."""
    primary = PostgreSQL(folder / "0", 16, FAST).start()
    with ExitStack() as servers:
        servers.enter_context(primary)
        with Database.fresh(primary) as database:
            host.handler.configure(database.conninfo)
            with service(host, mode) as resident, Load(host, 15 if scale.short else 400) as load:
                for number in range(1, 1 + _FAIL_OVERS[scale]):
                    standby = servers.enter_context(primary.standby(folder / str(number)))
                    primary.synchronous()
                    both = f"host={primary.folder},{standby.folder} port={primary.port},{standby.port}"
                    host.handler.configure(
                        f"{both} dbname={database.name} user=pipehandler target_session_attrs=read-write",
                        database={"connect_timeout": 2},
                    )
                    if resident:
                        resident.signal(signal.SIGHUP)
                    time.sleep(1 if scale.short else random.uniform(2, 6))
                    primary.stop(signal.SIGKILL)
                    standby.promote()
                    database.move(standby)
                    primary = standby
                    row.points += 1
                load.finish()
                host.drain(300)
            load.ledger.check(database, row)


def run(scale: Scale, mode: Mode) -> Row:
    """The campaign of the server."""
    row = mode.row("server")
    with account.folder("pipehandler-pg-") as folder, _small_disk(folder), mail_host(row) as host:
        _troubles(row, host, folder, scale, mode)
        _check_mode(row, host, mode)
    with account.folder("pipehandler-pg-") as folder, mail_host(row) as host:
        _fail_over(row, host, folder, scale, mode)
        _check_mode(row, host, mode)
    return row


def _check_mode(row: Row, host: MailHost, mode: Mode) -> None:
    """Check that Postfix's messages were delivered in that mode; the exceptions are those that a busy machine did not
    accept within a second."""
    if mode is Mode.RESIDENT:
        only_resident(row, host.handler, share=0.9)
