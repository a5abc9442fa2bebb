"""Three PostgreSQL servers under Patroni fail over while mail comes in from two mail hosts: their leader is killed, frozen for longer
than its ttl, or cut off, and comes back as a standby; or a standby is frozen.

All standbys are attached before each fault, without synchronous_mode_strict and with it, on two clusters at the same time.
The outages are measured at clients that retry continuously (fault/continuous.py).
"""

import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from statistics import median

import psycopg
from harness.patroni import LOOP_WAIT, TTL, Node, Patroni, patroni

from .continuous import CLIENTS, Load, MailHost, mail_hosts
from .ledger import Ledger, Mode, Row, Scale

_ROUNDS = {Scale.SHORT: 4, Scale.THIN: 8, Scale.FULL: 10}
"""On each of the two clusters."""

_MESSAGES = {Scale.SHORT: 200, Scale.THIN: 500, Scale.FULL: 2_000}
_LONGER = 12
"""Seconds for which a fault lasts longer than Patroni's ttl."""

BOUND = TTL + LOOP_WAIT + 5
"""Seconds that an outage may last."""


class Stored:
    """The database on whichever server is the leader, for Ledger.check. people: only recipients whose name begins so."""

    def __init__(self, cluster: Patroni, people: str = "") -> None:
        self._cluster, self._people = cluster, people

    def rows(self, statement: str) -> list[tuple[str, bytes]]:
        """The rows of a statement whose first column is the recipient."""
        with psycopg.connect(self._cluster.conninfo(dbname="mail")) as connection:
            return [row for row in connection.execute(statement.encode()) if row[0].startswith(self._people)]


@contextmanager
def _killed(cluster: Patroni, leader: Node) -> Iterator[None]:
    leader.kill()
    yield
    cluster.run(leader)


@contextmanager
def _frozen(_: Patroni, leader: Node) -> Iterator[None]:
    leader.signal(signal.SIGSTOP)
    yield
    leader.signal(signal.SIGCONT)


@contextmanager
def _cut_off(_: Patroni, leader: Node) -> Iterator[None]:
    leader.connected(False)
    yield
    leader.connected(True)


@contextmanager
def _standby_frozen(cluster: Patroni, leader: Node) -> Iterator[None]:
    standby = next(node for node in cluster.servers.values() if node is not leader)
    standby.signal(signal.SIGSTOP)
    yield
    standby.signal(signal.SIGCONT)


Fault = Callable[[Patroni, Node], AbstractContextManager[None]]

_FAULTS: tuple[tuple[str, Fault], ...] = (
    ("leader killed", _killed),
    ("leader frozen", _frozen),
    ("leader cut off", _cut_off),
    ("standby frozen", _standby_frozen),
)


def _round(cluster: Patroni, hosts: tuple[MailHost, MailHost], fault: Fault, count: int, ledger: Ledger) -> list[Load]:
    """One fault in the middle of a load of `count` messages; returns the loads."""
    cluster.settle()
    leader = cluster.leader()
    assert leader
    loads = [Load(host, ledger, count // 2) for host in hosts]
    with ThreadPoolExecutor(2 * CLIENTS) as pool:
        clients = [pool.submit(load.run) for load in loads for _ in range(CLIENTS)]
        cluster.wait(lambda: all(len(load.acknowledged) > load.count // 3 for load in loads), 300)
        with fault(cluster, leader):
            time.sleep(TTL + _LONGER)
        for each in clients:
            each.result()
    return loads


def _cluster(scale: Scale, strict: bool) -> tuple[Row, dict[tuple[str, str], list[float]]]:
    """All rounds on one cluster; returns also the outages of each fault, at each mail host."""
    row = Row("patroni")
    outages = defaultdict(list)
    mode = "strict" if strict else "not strict"
    ledger = Ledger()
    with patroni(strict) as cluster, mail_hosts(cluster) as hosts:
        for number in range(_ROUNDS[scale]):
            name, fault = _FAULTS[number % len(_FAULTS)]
            loads = _round(cluster, hosts, fault, _MESSAGES[scale], ledger)
            row.points += 1
            for load in loads:
                row.statuses += load.statuses
                way = load.host.way
                outages[name, way].append(load.outage)
                _say(f"round {number + 1}, {mode}, {name}, {way}: outage {load.outage:.1f} s")
                if load.outage > BOUND:
                    row.note(f"{name}, {mode}, {way}: an outage of {load.outage:.1f} s; the bound is {BOUND} s")
                if load.given_up:
                    row.note(f"{name}, {mode}, {way}: {load.given_up} messages were never acknowledged")
            cluster.settle()
            so_far = Row("patroni")
            ledger.check(Stored(cluster), so_far)  # type: ignore[arg-type]
            _say(f"round {number + 1}, {mode}: {so_far.sent} messages, {so_far.lost} lost, {so_far.doubled} doubled")
        row.add(so_far)
    return row, outages


def run(scale: Scale, mode: Mode) -> Row:
    """Every fault in turn; prints the outages to stderr."""
    total = mode.row("patroni")
    with ThreadPoolExecutor(2) as pool:
        running = {strict: pool.submit(_cluster, scale, strict) for strict in (False, True)}
        for strict, each in running.items():
            row, outages = each.result()
            total.add(row)
            for (name, way), seconds in sorted(outages.items()):
                _say(
                    f"{'strict' if strict else 'not strict'}, {name}, {way}: {len(seconds)} rounds,"
                    f" outage {median(seconds):.1f} s, at most {max(seconds):.1f} s"
                )
            _say(f"{'strict' if strict else 'not strict'}: {row.sent} messages, {row.lost} lost, {row.doubled} doubled")
    return total


def _say(text: str) -> None:
    sys.stderr.write(f"    {text}\n")
    sys.stderr.flush()
