"""Expiry: a delivery is removed, and the message with its last delivery; even at the very moment of its redelivery.

A delivery's expiry time is set to the past. Then the steps of `pipehandler expire` are run, with only the rights of the
role pipehandler_maintenance (sql/code/90_grants.sql).
"""

import itertools
import random
import threading
import time
from collections import Counter
from contextlib import closing
from typing import Any

from harness.database import Database
from harness.submission import submission

from pipehandler.store import expiry
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore

from .ledger import Row
from .mailbox import clear, stored

RECIPIENTS = ("a@example.com", "b@example.com", "c@example.com")
MESSAGES = tuple(
    b"From: a@example.org\nMessage-ID: <expiry%d@example.org>\n\n" % number + b"a line\n" * lines
    for number, lines in enumerate((1, 1, 20_000))
)

_THE_DELIVERY = """
SELECT d.id FROM pipehandler.delivery d JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message
 WHERE d.recipient = %s AND coalesce(d.prepended, '') || r.raw = %s
"""
_ANY_DELIVERY = "SELECT d.id FROM pipehandler.delivery d WHERE d.expires_at IS NULL ORDER BY random() LIMIT 1"
_DUE = "UPDATE pipehandler.delivery SET expires_at = now() WHERE id = %s"


def expire(database: Database, recipient: str, raw: bytes) -> None:
    """Remove one delivery."""
    with closing(_upkeep(database)) as store:
        found = store.rows(_THE_DELIVERY, (recipient, raw))
        assert len(found) == 1, f"{recipient} has the message {len(found)} times"
        store.connect().execute(_DUE, [found[0]["id"]])
        removed = sum((counts for counts in expiry.expire(store, ())), Counter())
        assert removed["deliveries"] == 1


def _upkeep(database: Database) -> MessageStore:
    return MessageStore(database.server.conninfo(database.name, user="upkeep"))


class _Rush:
    """Four threads that deliver and two that expire, all working on the same few messages: `rounds` times each, and until
    something has expired meanwhile, for a minute at most."""

    def __init__(self, rounds: int, database: Database, row: Row) -> None:
        self.rounds, self.database, self.row = rounds, database, row
        self.lock = threading.Lock()
        self.stored: Counter[int] = Counter()  # deliveries that were reported to a handler as stored, by id
        self.due: set[int] = set()  # deliveries that were made to expire
        self.removed = 0
        self.over = threading.Event()
        self.until = time.monotonic() + 60

    def run(self) -> None:
        """Run the threads, and then deliver everything once more, undisturbed."""
        deliverers = [threading.Thread(target=self._guard, args=(self._deliver, number)) for number in range(4)]
        expirers = [threading.Thread(target=self._guard, args=(self._expire, number)) for number in range(2)]
        for thread in (*deliverers, *expirers):
            thread.start()
        for thread in deliverers:
            thread.join()
        self.over.set()
        for thread in expirers:
            thread.join()
        with closing(_upkeep(self.database)) as store:
            for counts in expiry.expire(store, ()):
                self.removed += counts["deliveries"]

    def _guard(self, work: Any, number: int) -> None:
        """Record whatever ends a thread."""
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 # a failure in a thread is noted, whatever it is
            self.row.note(f"expiry: {work.__name__}: {type(error).__name__}: {error}")

    def _deliver(self, number: int) -> None:
        choice = random.Random(number)
        store = MessageStore(self.database.conninfo)
        for done in itertools.count():
            if done >= self.rounds and (self.removed or time.monotonic() > self.until):
                break
            raw, recipients = choice.choice(MESSAGES), choice.sample(RECIPIENTS, choice.randint(1, len(RECIPIENTS)))
            self._until_stored(store, raw, recipients)
        store.close()

    def _until_stored(self, store: MessageStore, raw: bytes, recipients: list[str]) -> None:
        """Deliver as Postfix does: again after a temporary failure."""
        while True:
            with self.lock:
                self.row.points += 1
            try:
                rows = store.ingest(submission(raw, *recipients))
            except StoreError as error:
                with self.lock:
                    self.row.statuses[error.outcome.status] += 1
                if error.sqlstate not in ("40001", "40P01"):
                    self.row.note(f"expiry: a delivery failed with {error.sqlstate} {error}")
                    return
                continue
            with self.lock:
                self.row.statuses[0] += 1
                self.stored.update(each.delivery for each in rows if not each.duplicate)
            return

    def _expire(self, number: int) -> None:
        with closing(_upkeep(self.database)) as store:
            while not self.over.is_set():
                for found in store.rows(_ANY_DELIVERY):
                    with self.lock:
                        self.row.points += 1
                        self.due.add(found["id"])
                    store.connect().execute(_DUE, [found["id"]])
                for counts in expiry.expire(store, (), batch=1 + 9 * number):
                    with self.lock:
                        self.removed += counts["deliveries"]
                time.sleep(0.001)


def run(rounds: int, database: Database, row: Row) -> None:
    """Four threads deliver `rounds` times each, while others expire what is stored."""
    clear(database)
    rush = _Rush(rounds, database, row)
    rush.run()

    present = {each.id for each in database.rows("SELECT id FROM pipehandler.delivery")}
    row.sent += len(rush.stored)
    row.lost += len(set(rush.stored) - rush.due - present)
    row.doubled += sum((rush.stored - Counter(set(rush.stored))).values())
    if not rush.removed:
        row.note("expiry: nothing expired while deliveries came")

    # Undisturbed: everything is stored once, whatever happened before.
    store = MessageStore(database.conninfo)
    for raw in MESSAGES:
        store.ingest(submission(raw, *RECIPIENTS))
    store.close()
    there = stored(database)
    row.sent += len(MESSAGES) * len(RECIPIENTS)
    for raw in MESSAGES:
        for recipient in RECIPIENTS:
            count = there.pop((recipient, raw), 0)
            row.lost += count == 0
            row.doubled += max(0, count - 1)
    if there:
        row.note(f"expiry: {there.total()} deliveries that were never sent")
    clear(database)
