"""The wire: the connection to PostgreSQL is cut, reset or falls silent at each protocol message of a delivery.

In autocommit mode the server commits between CommandComplete and ReadyForQuery, so a connection that ends there is an
uncertain commit. The rule: the status is 0 only where ReadyForQuery came, else one that defers; and when the message is
delivered again, as Postfix would, it is there once.
"""

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from real import account
from real.database import Database
from real.handler import Handler
from real.postgresql import FAST, PostgreSQL
from real.proxy import AFTER, BACKEND, BEFORE, CUT, FRONTEND, INSIDE, RESET, STALL, Fault, Message, proxy

from .ledger import Ledger, Row, Scale

_PLACES: tuple[str | int, ...] = (BEFORE, 1, INSIDE, -1, AFTER)
_HASTY: dict[str, dict[str, object]] = {
    "database": {"connect_timeout": 2, "statement_timeout": 1},
    "limits": {"deadline": 5, "parse_seconds": 4},
}
"""The shortest times that the configuration allows: so long lasts a stall."""

_TRIES = 5  # a handler on a busy machine may be out of these times before it comes to the message that is wanted
_STALLS = 8  # at once; they wait, and need no processor
_SAMPLE = 149  # in the short form every so many of the points beside the commit's
_COMMIT = ((FRONTEND, "S", 1), (BACKEND, "C", 1), (BACKEND, "Z", 2))
"""Sync, CommandComplete and the second ReadyForQuery: the commit comes between the last two."""


class _Kind(NamedTuple):
    """A kind of delivery: the octets of its body, its recipients, and whether it was delivered before."""

    octets: int
    recipients: int = 1
    before: bool = False


_SMALL = _Kind(300)
_KINDS = (_SMALL, _Kind(2_000_000, recipients=2), _Kind(300, before=True))


class _Point(NamedTuple):
    """One fault: in which kind of delivery, at which message of the conversation, where and how."""

    kind: _Kind
    message: Message
    place: str | int
    how: str

    @property
    def name(self) -> str:
        """For a finding."""
        return f"{self.how} {self.place} {self.message.sender}{self.message.kind} {self.message.number}, {self.kind}"

    @property
    def of_the_commit(self) -> bool:
        """Whether it belongs into every sample."""
        at_commit = (self.message.sender, self.message.kind, self.message.nth) in _COMMIT
        return at_commit and self.kind == _SMALL and isinstance(self.place, str)

    def strikes(self, each: Message) -> bool:
        """Whether this message of another conversation is the one."""
        return (each.sender, each.number) == (self.message.sender, self.message.number)


def _confirmed(messages: list[Message]) -> bool:
    """Whether the commit's answer is among these messages."""
    return any((each.sender, each.kind, each.nth) == (BACKEND, "Z", 2) for each in messages)


class _Campaign:
    """What is the same for all points: the database, a handler without faults, and the books."""

    def __init__(self, folder: Path, database: Database, row: Row) -> None:
        self.database, self.row = database, row
        self.conninfo = f"{database.server.conninfo(database.name, 'pipehandler', tcp=True)} password=secret"
        self.ledger = Ledger()
        self.sound = Handler(folder, database.conninfo)
        self._numbers = itertools.count(1)

    def points(self, scale: Scale) -> list[_Point]:
        """Every place of every message of every kind of conversation, or a sample."""
        points = [
            _Point(kind, each, place, how)
            for kind in _KINDS
            for each in self._conversation(kind)
            for place in _PLACES
            for how in (CUT, RESET, STALL)
        ]
        if scale is Scale.FULL:
            return points
        return [each for number, each in enumerate(points) if each.of_the_commit or number % _SAMPLE == 0]

    def _conversation(self, kind: _Kind) -> list[Message]:
        raw, recipients = self._message(kind)
        with proxy(self.database.server.port) as wire, _handler(wire.conninfo(self.conninfo)) as handler:
            status = handler.deliver(raw, *recipients).status
            wire.wait_for()
            if status != 0 or not _confirmed(wire.passed):
                self.row.note(f"without a fault the status is {status}, {kind}")
            return wire.messages

    def _message(self, kind: _Kind) -> tuple[bytes, list[str]]:
        """A message that was never sent before, and its recipients; it is in the books."""
        number = next(self._numbers)
        raw = (
            b"Message-ID: <%d@example.org>\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nFrom: a@example.org\n"
            b"To: user@example.com\nSubject: %d\n\n" % (number, number)
        ) + b"%068d\n" % number * (kind.octets // 69)
        recipients = [f"user{number}-{each}@example.com" for each in range(kind.recipients)]
        self.ledger.send(raw, *recipients)
        return raw, recipients

    def strike(self, point: _Point) -> None:
        """One delivery with the fault, and another without it."""
        raw, recipients = self._message(point.kind)
        if point.kind.before:
            self._redeliver(raw, recipients, f"before {point.name}")
        times = _HASTY if point.how == STALL else {}
        for _ in range(_TRIES):
            with proxy(self.database.server.port) as wire, _handler(wire.conninfo(self.conninfo), **times) as handler:
                wire.fault = Fault(point.strikes, point.place, point.how)
                status = handler.deliver(raw, *recipients).status
                hits, confirmed = wire.hits, _confirmed(wire.passed)
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
        self._redeliver(raw, recipients, f"after {point.name}")

    def refuse(self, name: str, conninfo: str) -> None:
        """One delivery to a server that cannot be spoken with, and another to the real one."""
        raw, recipients = self._message(_SMALL)
        with _handler(conninfo, **_HASTY) as handler:
            status = handler.deliver(raw, *recipients).status
        if status == 0:
            self.row.note(f"status 0 without a server: {name}")
        self._count(status, name)
        self._redeliver(raw, recipients, f"after {name}")

    def _count(self, status: int, name: str) -> None:
        self.row.points += 1
        self.row.statuses[status] += 1
        if status > 0 and status not in (71, 75):
            self.row.bounced += 1
            self.row.note(f"status {status} bounces: {name}")

    def _redeliver(self, raw: bytes, recipients: list[str], when: str) -> None:
        ended = self.sound.deliver(raw, *recipients)
        self.row.statuses[ended.status] += 1
        if ended.status != 0:
            self.row.note(f"without a fault, {when}: {ended}")


@contextmanager
def _handler(conninfo: str, **sections: dict[str, object]) -> Iterator[Handler]:
    """A handler with a state of its own: one that knows of an outage would not even try."""
    with account.folder("pipehandler-") as folder:
        yield Handler(folder, conninfo, **sections)


def _refusals(campaign: _Campaign) -> None:
    """Nobody there; somebody who is silent, who hangs up, or who speaks another protocol."""
    campaign.refuse("nobody listens", f"host=127.0.0.1 port={account.free_port()} dbname=x user=x")
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


def run(scale: Scale) -> Row:
    """The campaign on the wire."""
    row = Row("wire")
    with account.folder("pipehandler-pg-") as folder:
        server = PostgreSQL(folder / "16", 16, {**FAST, "max_connections": "200"}).start()
        # A password over TCP: its exchange is part of the conversation.
        (server.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.reload()
        with Database.fresh(server) as database, account.folder("pipehandler-") as own:
            database.execute("ALTER ROLE pipehandler PASSWORD 'secret'")
            campaign = _Campaign(own, database, row)
            points = campaign.points(scale)
            with ThreadPoolExecutor(2) as cuts, ThreadPoolExecutor(_STALLS) as stalls:
                made = [(stalls if each.how == STALL else cuts).submit(campaign.strike, each) for each in points]
                made.append(stalls.submit(_refusals, campaign))
            for each in made:
                each.result()
            campaign.ledger.check(database, row)
        server.stop()
    return row
