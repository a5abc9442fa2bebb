"""The synchronous standby stays away while mail comes in, and processes are killed in the middle of their commits.

Each kill leaves a session behind that waits for the standby (docs/design/postfix-facts.md). Their number must stay below
the connection limit that `pipehandler check` asks for, an administrator must be able to log in all the time, and nothing
may be acknowledged. When the standby is back, each message delivered again is stored once; then the standby is promoted,
and has them all.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.postgresql import FAST, PostgreSQL
from harness.service import Service, wait_until

from pipehandler.check.connections import sessions
from pipehandler.settings.config_file import load

from .ledger import Ledger, Mode, Row, Scale
from .pool import forget_outage, only_resident

_SECONDS = {Scale.SHORT: 0, Scale.THIN: 60, Scale.FULL: 600}
"""For how long the standby is away; for the sample until the limit has refused a delivery."""

_CLIENTS = 4
_MAXPROC = 2
_SETTINGS = {**FAST, "max_connections": "30"}
_HANDLER: dict[str, dict[str, object]] = {
    "database": {"mail_hosts": 2},
    "limits": {"deadline": 8, "parse_timeout": 2},
    "serve": {"workers": 2, "queue_timeout": 2},
}

_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = %s"
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler'"


class _Watch:
    """An administrator without special rights, who logs in again and again, and counts the sessions of the handler."""

    def __init__(self, database: Database, row: Row) -> None:
        self.most = 0
        self.logins = 0
        self.slowest = 0.0
        self._conninfo = database.server.conninfo(database.name, user="upkeep")
        self._row = row
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            started = time.monotonic()
            try:
                with psycopg.connect(self._conninfo, connect_timeout=5) as connection:
                    (count,) = connection.execute(_SESSIONS).fetchone() or (0,)
            except psycopg.OperationalError as error:
                self._row.note(f"an administrator cannot log in: {error}")
                return
            self.most = max(self.most, count)
            self.logins += 1
            self.slowest = max(self.slowest, time.monotonic() - started)


class _Load:
    """Clients that deliver new messages without a pause; three of four messages lose their process once their commit
    waits. Each client has a handler, whose sessions are named after its folder; with a service they share that."""

    def __init__(self, handlers: list[Handler], service: Service | None, database: Database, row: Row) -> None:
        self.sent: list[tuple[bytes, str]] = []
        self.refused = 0
        self.killed = 0
        self._handlers, self._service, self._database, self._row = handlers, service, database, row
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def run(self, handler: Handler, going_on: threading.Event) -> None:
        """Be a client: deliver until `going_on` is cleared."""
        while going_on.is_set():
            with self._lock:
                number = next(self._numbers)
                raw = f"Message-ID: <{number}@example.org>\nSubject: x\n\n{os.urandom(500).hex()}\n".encode()
                recipient = f"user{number}@example.com"
                self.sent.append((raw, recipient))
            self._attempt(handler, raw, recipient, kill=number % 4 > 0)

    def _attempt(self, handler: Handler, raw: bytes, recipient: str, kill: bool) -> None:
        forget_outage(handler)  # or most would not even try
        known = self._waiting(handler)
        with handler.start(handler.command(recipient)) as running:
            assert running.stdin is not None
            with suppress(BrokenPipeError):
                running.stdin.write(raw)
                running.stdin.close()
            if kill:
                self._kill(handler, running, known)
            status = running.wait(60)
            output = running.stdout.read() if running.stdout else b""
        with self._lock:
            self._row.statuses[status] += 1
            self._row.points += 1
            self.refused = sum(
                "too many connections for role" in line for each in self._handlers for line in each.log_lines()
            )
        if status == 0:
            self._row.note(f"acknowledged without the standby: {output.decode()}")

    def of_clients(self, count: int) -> list[Handler]:
        """The handler of each client."""
        return [self._handlers[number % len(self._handlers)] for number in range(count)]

    def _waiting(self, handler: Handler) -> set[int]:
        return {row.pid for row in self._database.rows(_WAITING, handler.folder.name)}

    def _kill(self, handler: Handler, running: "subprocess.Popen[bytes]", known: set[int]) -> None:
        """Kill the process of a session that is new among those that wait: of a cold delivery, or a worker."""
        while running.poll() is None and not self._waiting(handler) - known:
            time.sleep(0.05)
        with suppress(ProcessLookupError, IndexError):
            os.kill(running.pid if self._service is None else random.choice(self._service.workers()), signal.SIGKILL)
            self.killed += 1


@contextmanager
def _pair(folder: Path) -> Iterator[tuple[PostgreSQL, PostgreSQL, Database]]:
    primary = PostgreSQL(folder / "primary", 16, _SETTINGS).start()
    with primary, primary.standby(folder / "standby") as standby, Database.fresh(primary) as database:
        primary.synchronous()
        yield primary, standby, database
        # So that the database is dropped on the server that has it now.
        database.server.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
        database.server.reload()


def run(scale: Scale, mode: Mode) -> Row:
    """The standby is away, then back, then the only server."""
    row = mode.row("standby")
    with account.folder("pipehandler-pg-") as folder, account.folder("pipehandler-") as home, _pair(folder) as pair:
        primary, standby, database = pair
        handlers = _handlers(home, database)
        limit = sessions(load(str(handlers[0].config)), _MAXPROC)
        database.execute(f"ALTER ROLE pipehandler CONNECTION LIMIT {limit}")
        service = Service(handlers[0]).start() if mode is Mode.RESIDENT else None
        load_ = _Load(handlers[:1] if service else handlers, service, database, row)
        try:
            _away(row, scale, pair, load_, limit)
            _back(row, load_, handlers[0])
        finally:
            if service:
                service.stop()
                only_resident(row, handlers[0])
        primary.stop(signal.SIGKILL)
        standby.promote()
        database.move(standby)
        ledger = Ledger()
        for raw, recipient in load_.sent:
            ledger.send(raw, recipient)
        ledger.check(database, row)
    return row


def _handlers(home: Path, database: Database) -> list[Handler]:
    """One for each client."""
    found = []
    for number in range(_CLIENTS):
        folder = home / f"client{number}"
        folder.mkdir()
        account.give(folder)
        found.append(Handler(folder, f"{database.conninfo} application_name={folder.name}", **_HANDLER))
    return found


def _away(row: Row, scale: Scale, pair: tuple[PostgreSQL, PostgreSQL, Database], load_: _Load, limit: int) -> None:
    _, standby, database = pair
    going_on = threading.Event()
    going_on.set()
    standby.freeze()
    since = time.monotonic()
    try:
        with _Watch(database, row) as watch, ThreadPoolExecutor(_CLIENTS) as pool:
            clients = [pool.submit(load_.run, handler, going_on) for handler in load_.of_clients(_CLIENTS)]
            try:
                time.sleep(_SECONDS[scale])
                wait_until(lambda: load_.refused or any(each.done() for each in clients), "the limit")
            finally:
                going_on.clear()
            for each in clients:
                each.result()
    finally:
        standby.thaw()
    acknowledged = row.statuses[0]
    sys.stderr.write(
        f"    {row.kind}: the standby was away for {time.monotonic() - since:.0f} s; {len(load_.sent)} messages,"
        f" {load_.killed} killed while they waited, {load_.refused} refused by the limit, {acknowledged} acknowledged;"
        f" at most {watch.most} sessions of the handlers, limit {limit}, max_connections {_SETTINGS['max_connections']};"
        f" an administrator logged in {watch.logins} times, at most after {watch.slowest:.1f} s\n"
    )
    if watch.most > limit:
        row.note(f"{watch.most} sessions of the handler's role, more than its limit {limit}")
    if not watch.logins:
        row.note("the administrator never logged in")


def _back(row: Row, load_: _Load, handler: Handler) -> None:
    """Deliver everything again, as Postfix does."""

    def deliver(sent: tuple[bytes, str]) -> None:
        until = time.monotonic() + 120
        while True:
            forget_outage(handler)
            ended = handler.deliver(*sent)
            row.statuses[ended.status] += 1
            if ended.status == 0:
                return
            if time.monotonic() > until:
                row.note(f"not stored after the standby was back: {ended}")
                return

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(deliver, load_.sent))
