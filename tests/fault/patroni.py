"""Three PostgreSQL servers under Patroni fail over while mail comes in: their leader is killed, frozen for longer than its ttl, or
cut off, and comes back as a standby.

Handlers retry continuously, without Postfix's pauses, so the longest time between two acknowledgements is the outage. A
synchronous standby is attached before each fault.
"""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
from harness import account
from harness.handler import Handler
from harness.patroni import LOOP_WAIT, TTL, Node, Patroni, patroni
from harness.service import Service

from pipehandler.store.connection import Store
from pipehandler.store.migrate import migrate

from .ledger import Ledger, Mode, Row, Scale
from .pool import forget_outage

_CLIENTS = 8
_ROUNDS = {Scale.SHORT: 1, Scale.THIN: 3, Scale.FULL: 20}
_MESSAGES = {Scale.SHORT: 200, Scale.THIN: 500, Scale.FULL: 2_000}
_LONGER = 15
"""Seconds for which a fault lasts longer than Patroni's ttl."""

_MARGIN = 5
"""Seconds that an outage may last longer than ttl + loop_wait."""


class _Stored:
    """The database on whichever server is the leader, for Ledger.check."""

    def __init__(self, pair: Patroni) -> None:
        self._pair = pair

    def rows(self, statement: str) -> list[tuple[str, bytes]]:
        """The rows of a statement."""
        with psycopg.connect(self._pair.conninfo(dbname="mail")) as connection:
            return connection.execute(statement.encode()).fetchall()


@contextmanager
def _killed(pair: Patroni, leader: Node) -> Iterator[None]:
    leader.kill()
    yield
    pair.run(leader)


@contextmanager
def _frozen(pair: Patroni, leader: Node) -> Iterator[None]:
    leader.signal(signal.SIGSTOP)
    yield
    leader.signal(signal.SIGCONT)


@contextmanager
def _cut_off(pair: Patroni, leader: Node) -> Iterator[None]:
    leader.connected(False)
    yield
    leader.connected(True)


_FAULTS = (_killed, _frozen, _cut_off)


class _Load:
    """Clients that send each message until it is acknowledged. `acknowledged`: when, by the monotonic clock."""

    def __init__(self, handler: Handler, row: Row, count: int, first: int, ledger: Ledger) -> None:
        self.acknowledged: list[float] = []
        self._handler, self._row, self._ledger = handler, row, ledger
        self._numbers = iter(range(first, first + count))
        self._lock = threading.Lock()

    def run(self) -> None:
        """Be one client."""
        while (number := self._next()) is not None:
            raw = f"Message-ID: <{number}@example.org>\nSubject: x\n\n{os.urandom(2000).hex()}\n".encode()
            recipient = f"user{number % 50}@example.com"
            with self._lock:
                self._ledger.send(raw, recipient)
            while True:
                forget_outage(self._handler)
                status = self._handler.deliver(raw, recipient).status
                with self._lock:
                    self._row.statuses[status] += 1
                    if status == 0:
                        self.acknowledged.append(time.monotonic())
                        break

    def _next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    @property
    def outage(self) -> float:
        """The longest time without an acknowledgement, in seconds."""
        return max(after - before for before, after in itertools.pairwise(sorted(self.acknowledged)))


def _round(
    pair: Patroni, handler: Handler, row: Row, fault: Callable[..., object], count: int, ledger: Ledger
) -> float:
    """One fault in the middle of a load; returns the outage in seconds."""
    pair.settle()
    load = _Load(handler, row, count, row.points * count, ledger)
    row.points += 1
    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(load.run) for _ in range(_CLIENTS)]
        pair.wait(lambda: len(load.acknowledged) > count // 3, 300)
        leader = pair.leader()
        if leader is None:
            row.note("there is no leader before the fault")
        else:
            with fault(pair, leader):  # type: ignore[attr-defined]
                time.sleep(TTL + _LONGER)
        for each in clients:
            each.result()
    return load.outage


def run(scale: Scale, mode: Mode) -> Row:
    """Every fault in each of the rounds, without synchronous_mode_strict and with it; prints the outages to stderr."""
    row = mode.row("patroni")
    for strict in (False, True):
        with patroni(strict) as pair, account.folder("pipehandler-") as home:
            with psycopg.connect(pair.conninfo(), autocommit=True) as connection:
                connection.execute("CREATE DATABASE mail")
            store = Store(pair.conninfo(dbname="mail"), statement_timeout=100)
            migrate(store)
            store.script("CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 40")
            store.close()
            handler = Handler(
                home,
                pair.conninfo(dbname="mail", user="pipehandler"),
                database={"connect_timeout": 2},
                limits={"deadline": 8, "parse_timeout": 2},
                serve={"workers": _CLIENTS},
            )
            ledger = Ledger()
            with Service(handler):
                for number in range(_ROUNDS[scale]):
                    fault = _FAULTS[number % len(_FAULTS)]
                    for each in _FAULTS if scale.short else (fault,):
                        outage = _round(pair, handler, row, each, _MESSAGES[scale], ledger)
                        name = each.__name__.strip("_").replace("_", " ")
                        sys.stderr.write(f"    patroni, strict={strict}, {name}: outage {outage:.1f} s\n")
                        if outage > TTL + LOOP_WAIT + _MARGIN:
                            row.note(f"{name}, strict={strict}: an outage of {outage:.1f} s")
                pair.settle()
                ledger.check(_Stored(pair), row)  # type: ignore[arg-type]
    return row
