"""A load on a mail host: distinct messages over SMTP, as fast as it accepts them, each sent until it is accepted.

A client that is cut off before its 250 does not know whether the message was accepted, and sends it again, as any mail
host does. Both copies are then the same message, though their Received fields differ; so every message has all the
fields that identify it.
"""

import hashlib
import random
import re
import smtplib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import account
from harness.database import Database
from harness.mailhost import DOMAIN, MailHost
from harness.service import Service

from .ledger import Ledger, Mode, Row

_RECEIVED = re.compile(
    rb"\A(?:(?:Return-Path|X-Original-To|Delivered-To): [^\n]*\n)*Received: from [^\n]*\n(?:[ \t][^\n]*\n)+"
)
"""What Postfix prepends; the fields before Received are those of virtual(8)."""

_LARGE_EVERY = 25
_PATIENCE = 120  # seconds for which a client keeps trying


class Posted(Ledger):
    """A record of what was sent over SMTP: compared after the one Received field that Postfix prepended."""

    def digests(self, database: Database, row: Row) -> Iterator[tuple[str, bytes]]:
        for recipient, raw in database.rows(
            "SELECT d.recipient, coalesce(d.prepended, '') || r.raw AS raw FROM pipehandler.delivery d"
            "  JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        ):
            yield recipient, hashlib.sha256(_RECEIVED.sub(b"", raw, count=1)).digest()


def message(number: int) -> bytes:
    """A distinct message: most have a few kilobytes, some hundreds; with dots, 8-bit text and long lines."""
    chance = random.Random(number)
    lines = 4000 if number % _LARGE_EVERY == 0 else chance.randrange(2, 60)
    body = "".join(
        f"{chance.choice(['', '.', '..', 'From ', 'é '])}{chance.randbytes(30).hex()}\n" for _ in range(lines)
    )
    return (
        f"Message-ID: <{number}@example.org>\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nFrom: a@example.org\n"
        f"To: user@example.com\nSubject: number {number}\n\n{body}{'x' * 900}\n"
    ).encode()


class Load:
    """Send `count` messages to `host` by several concurrent clients; most for one recipient, some for two. `pause`:
    seconds that a client waits before each. first: the number of the first message; ledger: of several loads."""

    def __init__(
        self,
        host: MailHost,
        count: int,
        clients: int = 4,
        pause: float = 0,
        first: int = 1,
        ledger: Posted | None = None,
    ) -> None:
        self.ledger = ledger or Posted()
        self.accepted = 0
        self._host = host
        self._pause = pause
        self._stopped = False
        self._numbers = iter(range(first, first + count))
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []
        self._clients = [threading.Thread(target=self._send_all, daemon=True) for _ in range(clients)]
        for each in self._clients:
            each.start()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._stopped = failed is not None
        if not self._stopped:
            self.finish()

    @property
    def going_on(self) -> bool:
        """Whether messages are left to send."""
        return any(each.is_alive() for each in self._clients)

    def finish(self) -> None:
        """Wait until everything was accepted."""
        for each in self._clients:
            each.join()
        if self._failed:
            raise self._failed[0]

    def _send_all(self) -> None:
        try:
            while (number := self._next()) is not None:
                recipients = [f"user{number}@{DOMAIN}", f"shared{number % 10}@{DOMAIN}"][: 2 if number % 4 == 0 else 1]
                raw = message(number)
                time.sleep(self._pause)
                self._send(raw, recipients)
                with self._lock:
                    self.ledger.send(raw, *recipients)
                    self.accepted += 1
        except BaseException as error:  # noqa: BLE001 # a failure in a thread is kept, whatever it is
            self._failed.append(error)

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped else next(self._numbers, None)

    def _send(self, raw: bytes, recipients: list[str]) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._host.send(raw, "a@example.org", *recipients)
            except (OSError, smtplib.SMTPException):
                if time.monotonic() > until or self._stopped:
                    raise
                time.sleep(0.1)


@contextmanager
def mail_host(row: Row, conninfo: str = "", *settings: str, client: bool = False) -> Iterator[MailHost]:
    """A running mail host with these settings (name=value) in main.cf, and the hand-over client if it is wanted; the results
    in its logs are added to `row` at the end."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, conninfo)
        if client:
            host.use_client()
        if settings:
            host.postconf("-e", *settings)
        try:
            host.start()
            yield host
        finally:
            host.abort()
        add_up(host, row)


@contextmanager
def service(host: MailHost, mode: Mode, program: Path | None = None) -> Iterator[Service | None]:
    """The resident workers of a mail host, if that is the mode; `program`: that of another release."""
    if mode is Mode.COLD:
        yield None
        return
    with Service(host.handler, program=program) as running:
        yield running


def add_up(host: MailHost, row: Row) -> None:
    """Add the statuses and the bounces that the logs show."""
    for line in host.handler.log_lines():
        if found := re.search(r" status=(\d+)", line):
            row.statuses[int(found[1])] += 1
    for attempt in host.deliveries():
        if attempt["status"] not in ("sent", "deferred"):
            row.bounced += 1
            row.note(f"Postfix: {attempt}")
        if found := re.search(r"Command died with signal (\d+)", attempt["text"]):
            row.statuses[-int(found[1])] += 1


def drain(host: MailHost, seconds: float = 300) -> None:
    """Wait until the queue is empty. A message that was still being delivered when Postfix was started or reloaded is
    not retried for a minute; a flush skips that delay."""
    until = time.monotonic() + seconds
    while host.queue() and time.monotonic() < until:
        host.flush()
        time.sleep(0.5)
    host.drain(1)
