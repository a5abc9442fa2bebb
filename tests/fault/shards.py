"""Shards: each of them, and their proxy, is stopped, killed and frozen while mail comes in for all.

While a shard is away, a message for it must be deferred, and one for another shard stored; while the proxy is, each is
deferred. Afterwards each message is there once, on the shard of its recipient, also those for recipients on all shards.
"""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.shards import COUNT, Shards, sharded

from .ledger import Ledger, Mode, Row, Scale

_PROXY = COUNT
"""The place of a fault, if it is not the number of a shard."""

_FAULTS = ("stopped", "killed", "frozen")
_SAMPLE = ((1, "killed"), (2, "frozen"))
_ROUNDS = {Scale.SHORT: 1, Scale.THIN: 1, Scale.FULL: 10}
_HASTY: dict[str, dict[str, object]] = {
    "database": {"connect_timeout": 2, "statement_timeout": 2},
    "limits": {"deadline": 20},
}
_PATIENCE = 60.0
"""Seconds after a fault within which what was deferred has to be stored."""


def run(scale: Scale, mode: Mode) -> Row:
    """Each fault in each place, under load."""
    row, ledger = mode.row("shards"), Ledger()
    points = _SAMPLE if scale.short else [(place, fault) for place in range(COUNT + 1) for fault in _FAULTS]
    with (
        account.folder("pipehandler-shards-") as servers,
        account.folder("pipehandler-") as folder,
        sharded(servers) as shards,
    ):
        mail = _Mail(shards, Handler(folder, shards.proxy.conninfo, **_HASTY), row, ledger)
        for place, fault in points * _ROUNDS[scale]:
            row.points += 1
            mail.see(place, fault)
        ledger.check(_Stored(shards), row)  # type: ignore[arg-type]
        for each in shards.deliveries():
            number, _, recipient = each.partition(" ")
            if shards.number(recipient) != int(number):
                row.note(f"{recipient} is on shard {number}")
    return row


class _Mail:
    """Messages before, during and after each fault."""

    def __init__(self, shards: Shards, handler: Handler, row: Row, ledger: Ledger) -> None:
        self.shards, self.handler, self.row, self.ledger = shards, handler, row, ledger
        self._addresses = shards.addresses()

    def see(self, place: int, fault: str) -> None:
        """Make a fault; deliver to each shard and to all during it, and again after it, beside a load."""
        over = Event()
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(self._load, over)
            with _fault(self.shards, place, fault):
                during = [(address, self._message(address)) for address in self._addresses]
                for number, (address, raw) in enumerate(during):
                    away = place in (number, _PROXY)
                    self._deliver(raw, address, when=f"{fault} {place}, for shard {number}", wanted=75 if away else 0)
                to_all = self._message(*self._addresses)
                self._deliver(to_all, *self._addresses, when=f"{fault} {place}, for all", wanted=75)
            for address, raw in during:
                self._until_stored(raw, address)
            self._until_stored(to_all, *self._addresses)
            over.set()
            load.result()

    def _load(self, over: Event) -> None:
        while not over.is_set():
            address = random.choice(self._addresses)
            self._until_stored(self._message(address), address)

    def _message(self, *recipients: str) -> bytes:
        raw = f"Message-ID: <{random.randbytes(8).hex()}@example.org>\n\n{random.randbytes(5_000).hex()}\n".encode()
        self.ledger.send(raw, *recipients)
        return raw

    def _deliver(self, raw: bytes, *recipients: str, when: str, wanted: int) -> None:
        ended = self.handler.deliver(raw, *recipients)
        self.row.statuses[ended.status] += 1
        if ended.status != wanted:
            self.row.note(f"{when}: status {ended.status}, {self.handler.log_lines()[-3:]}")

    def _until_stored(self, raw: bytes, *recipients: str) -> None:
        until = time.monotonic() + _PATIENCE
        while (ended := self.handler.deliver(raw, *recipients)).status == 75 and time.monotonic() < until:
            self.row.statuses[75] += 1
            time.sleep(0.5)
        self.row.statuses[ended.status] += 1
        if ended.status != 0:
            self.row.note(f"not stored within {_PATIENCE:.0f} s: {ended}, {self.handler.log_lines()[-3:]}")


class _Stored:
    """The deliveries of all shards, as one database."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def rows(self, statement: str) -> list[Any]:
        """The rows of each shard."""
        return [row for shard in self._shards.of for row in shard.rows(statement)]


@contextmanager
def _fault(shards: Shards, place: int, fault: str) -> Iterator[None]:
    database: Database = shards.proxy if place == _PROXY else shards.of[place]
    server = database.server
    if fault == "frozen":
        server.freeze()
    else:
        server.stop(signal.SIGKILL if fault == "killed" else signal.SIGINT)
    try:
        yield
    finally:
        if fault == "frozen":
            server.thaw()
        else:
            server.start()
