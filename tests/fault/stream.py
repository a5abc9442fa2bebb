"""The stream under stress: a hundred writers whose transactions overlap, wait, are rolled back and lose their
connection, and ten followers that are slow, are killed, lose their connection, and continue from their last cursor; two
more see only a part.

Each follower has to see every delivery that was committed, once, in the same order as all others: that of (xid, id). No
message is delivered by the handler here, so this kind has no mode.
"""

import json
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg
from harness import account
from harness.console import Console
from harness.database import Database
from harness.postgresql import FAST, PostgreSQL
from harness.stream import announce, ingest, numbered

import pipehandler
from pipehandler.mail.identity import identify
from pipehandler.store.errors import StoreError

from .ledger import Mode, Row, Scale

_WRITERS = 100
_RECIPIENTS = ("a@example.com", "B@example.com", "c+x@example.com")
_LEASED = _RECIPIENTS[2]
_LAST = 0  # the number of the message after which a follower may stop; it goes to all recipients
_PATIENCE = 60.0  # seconds for a follower to see the last one


class _Size(NamedTuple):
    """messages: of each writer; processes: followers that are separate processes, the others are threads; life: the
    most deliveries that such a process sees before it is killed."""

    messages: int
    processes: int
    life: int


_SIZES = {Scale.SHORT: _Size(6, 3, 400), Scale.THIN: _Size(60, 4, 1000), Scale.FULL: _Size(200, 5, 2000)}


class _Follower(threading.Thread):
    """A follower of a stream; `seen` are the ids of the deliveries, `ends` counts how often it was stopped and
    resumed."""

    recipient: str | None = None
    lease: int | None = None

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.seen: list[int] = []
        self.ends = 0
        self.cursor = ""
        self._random = random.Random(number)
        self._missing = len(_RECIPIENTS)
        self._last = identify(numbered(_LAST)).id

    def note(self, delivery: int, message: str, cursor: str) -> bool:
        """Record a delivery; returns whether it was the last one."""
        self.seen.append(delivery)
        self.cursor = cursor
        self._missing -= message == self._last
        return self._missing == 0

    def only(self, recipient: str | None = None, lease: int | None = None) -> "_Follower":
        """Whether it sees only a part."""
        self.recipient, self.lease, self._missing = recipient, lease, 1
        return self


class _Application(_Follower):
    """`pipehandler.follow` in a thread, which is slow now and then, or drops the stream and resumes."""

    def __init__(self, number: int, conninfo: str) -> None:
        super().__init__(number)
        self._conninfo = f"{conninfo} application_name=victim"

    def run(self) -> None:
        while True:
            with suppress(StoreError):  # the connection was killed before there was a stream
                stream = pipehandler.follow(
                    self._conninfo, self.cursor, recipient=self.recipient, lease=self.lease, poll=1
                )
                for each in stream:
                    if self.note(each.id, each.message, each.cursor):
                        return
                    if self._random.random() < 0.05:
                        time.sleep(self._random.uniform(0, 0.1))
                    if self._random.random() < 0.01:
                        break
                stream.close()
            self.ends += 1


class _Process(_Follower):
    """`pipehandler follow --json`, killed repeatedly, and restarted with the last cursor that it printed completely."""

    def __init__(self, number: int, console: Console, life: int, statuses: list[int]) -> None:
        super().__init__(number)
        self._console, self._life, self._statuses = console, life, statuses

    def run(self) -> None:
        while not self._follow():
            self.ends += 1

    def _follow(self) -> bool:
        """Run one process to its end; returns whether it saw the last delivery."""
        left = self._random.randrange(20, self._life)
        done = False
        with subprocess.Popen(
            self._console.command("follow", "--json", "--cursor", self.cursor),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as running:
            assert running.stdout
            for line in running.stdout:
                if not line.endswith(b"\n"):
                    break  # killed in the middle
                said = json.loads(line)
                done = self.note(said["id"], said["message"], said["cursor"])
                left -= 1
                if done or not left:
                    running.send_signal(signal.SIGTERM if done else signal.SIGKILL)
        self._statuses.append(running.returncode)
        return done


class _Writer:
    """Stores messages, each in a slow transaction; some do not end with COMMIT."""

    def __init__(self, database: Database, number: int, messages: int) -> None:
        self._conninfo = f"{database.conninfo} application_name=victim"
        self._numbers = range(1 + number * messages, 1 + (number + 1) * messages)
        self._random = random.Random(number)
        self.committed = self.faults = 0

    def run(self) -> None:
        """Store all its messages."""
        connection = None
        for number in self._numbers:
            self._pause()
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(self._conninfo)
                self._store(connection, number)
            except psycopg.OperationalError:  # its connection was killed
                self.faults += 1
        if connection:
            connection.close()

    def _store(self, connection: "psycopg.Connection[tuple[object, ...]]", number: int) -> None:
        if self._random.random() < 0.3:
            connection.execute("SELECT pg_current_xact_id()")  # early in the order, late in the sequence
            self._pause()
        ingest(connection, number, self._random.choice(_RECIPIENTS))
        self._pause()
        if self._random.random() < 0.1:
            connection.rollback()
            self.faults += 1
            return
        connection.commit()
        self.committed += 1
        if self._random.random() < 0.9:  # a notification may get lost
            connection.execute("SELECT pg_notify('pipehandler', '')")
            connection.commit()

    def _pause(self) -> None:
        time.sleep(self._random.choice((0, 0.001, 0.01, 0.05, 0.2)) * self._random.random())


def run(scale: Scale, mode: Mode) -> Row:
    """Write and follow, and compare what was seen with what is stored."""
    row, size = mode.row("stream"), _SIZES[scale]
    with account.folder("pipehandler-stream-") as folder:
        server = PostgreSQL(folder / "16", 16, {**FAST, "max_connections": "200"}).start()
        try:
            with Database.fresh(server) as database:
                _stress(database, size, folder, row)
        finally:
            server.stop()
    return row


def _stress(database: Database, size: _Size, folder: Path, row: Row) -> None:
    lease = database.value("SELECT lease FROM pipehandler.lease_address(%s)", _LEASED)
    conninfo = database.server.conninfo(database.name, user="reader")
    statuses: list[int] = []
    console = Console(folder, database)
    console.configure(role="reader")
    followers: list[_Follower] = [_Process(number, console, size.life, statuses) for number in range(size.processes)]
    followers += [_Application(number, conninfo) for number in range(size.processes, 10)]
    followers += [
        _Application(10, conninfo).only(recipient=_RECIPIENTS[1].upper()),
        _Application(11, conninfo).only(lease=lease),
    ]
    writers = [_Writer(database, number, size.messages) for number in range(_WRITERS)]
    over = threading.Event()
    with ThreadPoolExecutor(_WRITERS + 1) as executor:
        killed = executor.submit(_kill, database, over)
        for follower in followers:
            follower.start()
        for each in [executor.submit(writer.run) for writer in writers]:
            each.result()
        over.set()
        row.points += killed.result()
    with psycopg.connect(database.conninfo) as connection:
        ingest(connection, _LAST, *_RECIPIENTS)
    announce(database)
    until = time.monotonic() + _PATIENCE
    for follower in followers:
        follower.join(max(0.0, until - time.monotonic()))
        _compare(follower, database, row)
    row.points += sum(each.faults for each in writers) + sum(each.ends for each in followers)
    row.statuses.update(statuses)
    if database.value("SELECT count(*) FROM pipehandler.delivery") < sum(each.committed for each in writers):
        row.note("a delivery that was committed is not there")


def _kill(database: Database, over: threading.Event) -> int:
    """End sessions of writers and followers, one after the other; returns how many."""
    count = 0
    with psycopg.connect(database.admin, autocommit=True) as connection:
        while not over.wait(0.05):
            count += connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' ORDER BY random() LIMIT 1"
            ).rowcount
    return count


def _compare(follower: _Follower, database: Database, row: Row) -> None:
    expected = [
        each.id
        for each in database.rows(
            "SELECT id FROM pipehandler.delivery WHERE (%s::text IS NULL OR lower(recipient) = lower(%s))"
            "   AND (%s::bigint IS NULL OR lease = %s) ORDER BY xid, id",
            *(follower.recipient, follower.recipient, follower.lease, follower.lease),
        )
    ]
    row.sent += len(expected)
    row.lost += len(set(expected) - set(follower.seen))
    row.doubled += len(follower.seen) - len(set(follower.seen))
    if follower.is_alive():
        row.note(f"follower {follower.number} does not come to the end")
    if follower.seen != expected:
        row.note(
            f"follower {follower.number} saw {len(follower.seen)} of {len(expected)} deliveries, or in another order"
        )
