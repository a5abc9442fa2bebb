"""The wire: the connection to PostgreSQL is cut, reset or falls silent at each protocol message of a delivery.

In autocommit mode the server commits between CommandComplete and ReadyForQuery, so a connection that ends there is an
uncertain commit. The rule: the status is 0 only if ReadyForQuery was received, otherwise one that defers; and when the
message is delivered again, as Postfix would, it is stored once. A worker may repeat a statement on a new connection if
the kept one was lost; and it continues afterwards.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.postgresql import FAST, PostgreSQL
from harness.proxy import (
    AFTER,
    BACKEND,
    BEFORE,
    CUT,
    FRONTEND,
    INSIDE,
    RESET,
    STALL,
    Fault,
    Message,
    Proxy,
    message,
    proxy,
)

from .ledger import Ledger, Mode, Row, Scale
from .pool import Pool, forget_outage, pool

_PLACES: tuple[str | int, ...] = (BEFORE, 1, INSIDE, -1, AFTER)
_HASTY: dict[str, dict[str, object]] = {
    "database": {"connect_timeout": 2, "statement_timeout": 1},
    "limits": {"deadline": 5, "parse_timeout": 4},
}
"""The shortest timeouts that the configuration allows: a stall lasts that long."""

_TRIES = 5  # a handler on a busy machine may exceed these timeouts before it reaches the selected message
_STALLS = 8  # concurrent; they wait, and need no CPU
_SAMPLE = 211  # in the short form every nth point, besides those of the commit
_COMMIT = ((FRONTEND, "S", 1), (BACKEND, "C", 1), (BACKEND, "Z", 2))
"""Sync, CommandComplete and the second ReadyForQuery: the commit comes between the last two."""


class _Kind(NamedTuple):
    """A kind of delivery: the size of its body in octets, its recipients, and whether it was delivered before."""

    octets: int
    recipients: int = 1
    before: bool = False


_SMALL = _Kind(300)
_KINDS = (_SMALL, _Kind(2_000_000, recipients=2), _Kind(300, before=True))


class _Point(NamedTuple):
    """One fault: in which kind of delivery, at which protocol message, where and how. `kept`: the connection exists
    before the mail message."""

    kind: _Kind
    message: Message
    place: str | int
    how: str
    kept: bool

    @property
    def name(self) -> str:
        """The text for a finding."""
        where = f"{self.message.sender}{self.message.kind} {self.message.number}{' of a kept connection' * self.kept}"
        return f"{self.how} {self.place} {where}, {self.kind}"

    @property
    def of_the_commit(self) -> bool:
        """Whether it belongs into every sample."""
        at_commit = (self.message.sender, self.message.kind, self.message.nth) in _COMMIT
        return at_commit and self.kind == _SMALL and isinstance(self.place, str)

    def strikes(self, each: Message) -> bool:
        """Whether this message of another conversation is the selected one."""
        return (each.sender, each.number) == (self.message.sender, self.message.number)


def _wait_for(done: Callable[[], object], seconds: float = 2) -> None:
    """Wait until the condition is true, but no longer than that."""
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.01)


def _await_hit(wire: Proxy) -> None:
    """Wait for the fault at the end of a conversation, which may occur after the handler has exited."""
    _wait_for(lambda: wire.hits)


def _confirmed(wire: Proxy, start: int = 0, patience: float = 0) -> bool:
    """Whether the commit's answer was passed on after the first `start` messages; the proxy notes it a moment later."""

    def there() -> bool:
        return any((each.sender, each.kind, each.nth) == (BACKEND, "Z", 2) for each in wire.passed[start:])

    _wait_for(there, patience)
    return there()


class _Campaign:
    """What all points share: the database, the handlers, and the ledger."""

    def __init__(self, database: Database, handlers: Pool, row: Row) -> None:
        self.database, self.handlers, self.row = database, handlers, row
        self.conninfo = f"{database.server.conninfo(database.name, 'pipehandler', tcp=True)} password=secret"
        self.ledger = Ledger()
        self._numbers = itertools.count(1)

    def points(self, scale: Scale) -> list[_Point]:
        """Every place of every message of every kind of conversation, or a sample."""
        resident = self.handlers.mode is Mode.RESIDENT
        points = [
            _Point(kind, each, place, how, kept)
            for kept in (False, True)[: 1 + resident]
            for kind in _KINDS
            for each in self._conversation(kind, kept)
            for place in _PLACES
            for how in (CUT, RESET, STALL)
        ]
        if not scale.short:
            return list(scale.thin(points, 45))
        if resident:
            return [each for each in points if each.of_the_commit and each.how != STALL][::3]
        return [each for number, each in enumerate(points) if each.of_the_commit or number % _SAMPLE == 0]

    def _conversation(self, kind: _Kind, kept: bool) -> list[Message]:
        raw, recipients = self._message(kind)
        self._beforehand(kind, raw, recipients)
        with self._wire(kept) as (wire, handler):
            before = len(wire.messages)
            status = handler.deliver(raw, *recipients).status
            if self.handlers.mode is Mode.COLD:
                wire.wait_for()
            self.handlers.worker(handler)  # it sends NOTIFY after it has answered the entrypoint
            if status != 0 or not _confirmed(wire, patience=1):
                self.row.note(f"without a fault the status is {status}, {kind}")
            return wire.messages[before:]

    @contextmanager
    def _wire(self, kept: bool, **sections: dict[str, object]) -> Iterator[tuple[Proxy, Handler]]:
        """A wire, and a handler that uses it. A worker that should have no connection has lost its first one."""
        with proxy(self.database.server.port) as wire:
            if self.handlers.mode is Mode.RESIDENT and not kept:
                wire.fault = Fault(message(FRONTEND, ""), BEFORE, CUT)
            with self.handlers.handler(wire.conninfo(self.conninfo), **sections) as handler:
                wire.hits = 0
                yield wire, handler

    def _message(self, kind: _Kind) -> tuple[bytes, list[str]]:
        """A new message and its recipients, recorded in the ledger."""
        number = next(self._numbers)
        raw = (
            b"Message-ID: <%d@example.org>\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nFrom: a@example.org\n"
            b"To: user@example.com\nSubject: %d\n\n" % (number, number)
        ) + b"%068d\n" % number * (kind.octets // 69)
        recipients = [f"user{number}-{each}@example.com" for each in range(kind.recipients)]
        self.ledger.send(raw, *recipients)
        return raw, recipients

    def _beforehand(self, kind: _Kind, raw: bytes, recipients: list[str]) -> None:
        """Deliver a message that should be stored beforehand."""
        if kind.before:
            with self.handlers.handler(self.conninfo) as handler:
                self._redeliver(handler, raw, recipients, f"before {kind}")

    def strike(self, point: _Point) -> None:
        """One delivery with the fault, and another without it; a worker that had the fault has to make the second one
        as well."""
        raw, recipients = self._message(point.kind)
        self._beforehand(point.kind, raw, recipients)
        times = _HASTY if point.how == STALL else {}
        for _ in range(_TRIES):
            with self._wire(point.kept, **times) as (wire, handler):
                before = len(wire.passed)
                wire.fault = Fault(point.strikes, point.place, point.how)
                status = handler.deliver(raw, *recipients).status
                self.handlers.worker(handler)
                if point.message.kind == "X" and self.handlers.mode is Mode.COLD:
                    _await_hit(wire)
                wire.fault = None
                hits, confirmed = wire.hits, _confirmed(wire, before, patience=float(status == 0))
                if hits and self.handlers.mode is Mode.RESIDENT:
                    self._redeliver(
                        handler, raw, recipients, f"after {point.name}", wire if point.how == STALL else None
                    )
            if hits:
                break
        if hits != 1:
            self.row.note(f"the fault happened {hits} times: {point.name}")
        if status == 0 and not confirmed:
            self.row.note(f"status 0 before the commit was confirmed: {point.name}")
        # A reset may overtake what was sent before it.
        if status != 0 and confirmed and point.how != RESET:
            self.row.note(f"status {status} after the commit was confirmed: {point.name}")
        self._count(status, point.name)
        if self.handlers.mode is Mode.COLD:
            with self.handlers.handler(self.conninfo) as handler:
                self._redeliver(handler, raw, recipients, f"after {point.name}")

    def refuse(self, name: str, conninfo: str) -> None:
        """One delivery to a server that does not speak the protocol, and another to the real one."""
        raw, recipients = self._message(_SMALL)
        with self.handlers.handler(conninfo, **_HASTY) as handler:
            status = handler.deliver(raw, *recipients).status
        if status == 0:
            self.row.note(f"status 0 without a server: {name}")
        self._count(status, name)
        with self.handlers.handler(self.conninfo) as handler:
            self._redeliver(handler, raw, recipients, f"after {name}")

    def _count(self, status: int, name: str) -> None:
        self.row.points += 1
        self.row.statuses[status] += 1
        if status > 0 and status not in (71, 75):
            self.row.bounced += 1
            self.row.note(f"status {status} bounces: {name}")

    def _redeliver(
        self, handler: Handler, raw: bytes, recipients: list[str], when: str, silent: Proxy | None = None
    ) -> None:
        """Deliver without a fault. Behind a wire that is still silent for the worker's old connection, this may be deferred: by
        that connection, or by the transaction that the server has not ended. Then the wire is cut."""
        for _ in range(1 + (silent is not None)):
            forget_outage(handler)
            ended = handler.deliver(raw, *recipients)
            self.row.statuses[ended.status] += 1
            if ended.status == 0:
                return
            if silent:
                silent.released.set()
        self.row.note(f"without a fault, {when}: {ended}")


def _refusals(campaign: _Campaign) -> None:
    """Servers that are absent, silent, close the connection, or speak another protocol."""
    campaign.refuse("no server listens", f"host=127.0.0.1 port={account.free_port()} dbname=x user=x")
    campaign.refuse("no such host", "host=nobody.invalid dbname=x user=x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        campaign.refuse("silence", f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=x user=x")
    for name, greeting in {"hangs up": b"", "another protocol": b"220 mx.example.net ESMTP\r\n"}.items():
        with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as executor:
            other.settimeout(30)
            executor.submit(_greet, other, greeting)
            campaign.refuse(name, f"host=127.0.0.1 port={other.getsockname()[1]} dbname=x user=x sslmode=disable")


def _greet(listener: socket.socket, greeting: bytes) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        client.sendall(greeting)


def run(scale: Scale, mode: Mode) -> Row:
    """The campaign on the wire."""
    row = mode.row("wire")
    with account.folder("pipehandler-pg-") as folder:
        server = PostgreSQL(folder / "16", 16, {**FAST, "max_connections": "200"}).start()
        # A password over TCP: its exchange is part of the conversation.
        (server.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.reload()
        busy = 2 if scale.short else 2 + _STALLS
        with Database.fresh(server) as database, pool(mode, row, busy) as handlers:
            database.execute("ALTER ROLE pipehandler PASSWORD 'secret'")
            campaign = _Campaign(database, handlers, row)
            points = campaign.points(scale)
            with ThreadPoolExecutor(2) as cuts, ThreadPoolExecutor(_STALLS) as stalls:
                made = [(stalls if each.how == STALL else cuts).submit(campaign.strike, each) for each in points]
                if mode is Mode.COLD or not scale.short:
                    made.append(stalls.submit(_refusals, campaign))
            for each in made:
                each.result()
            campaign.ledger.check(database, row)
        server.stop()
    return row
