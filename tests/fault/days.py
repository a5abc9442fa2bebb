"""Days: mail arrives while a day begins, while its partition is missing, and while days that are due are removed.

Each message goes to one recipient before the partition of today is there and to another one afterwards, as across
midnight, and to each of them again at any time. Meanwhile old days with expired mail are removed, which a reader now and
then keeps in use. No message is delivered by the handler here, so this kind has no mode.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random

import psycopg
from harness import account
from harness.database import Database
from harness.days import drop_day, make_older, partitions, today
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.submission import submission

from pipehandler.store import expiry
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore

from .ledger import Ledger, Mode, Row, Scale

_WRITERS = 4
_MESSAGES = {Scale.SHORT: 25, Scale.THIN: 250, Scale.FULL: 2_500}
"""Of each writer."""

_OLD = {Scale.SHORT: 4, Scale.THIN: 20, Scale.FULL: 60}
"""Days with expired mail."""

_BEFORE, _AFTER = "before@example.com", "after@example.com"


class _Writers:
    """Writers that deliver as Postfix does: again after a temporary failure, and now and then although it was stored."""

    def __init__(self, database: Database, messages: int, row: Row) -> None:
        self.database, self.messages, self.row = database, messages, row
        self.ledger = Ledger()
        self.lock = threading.Lock()
        self.begun = threading.Event()
        self.day = threading.Event()

    def run(self) -> None:
        """Deliver everything; returns when it is stored."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            for done in [pool.submit(self._write, number) for number in range(_WRITERS)]:
                done.result()

    def _write(self, number: int) -> None:
        choice = Random(number)
        raws = [
            b"From: a@example.org\nMessage-ID: <day-%d-%d@example.org>\n\n%s"
            % (number, each, b"x" * choice.randrange(9000))
            for each in range(self.messages)
        ]
        with closing(MessageStore(self.database.conninfo)) as store:
            for each, raw in enumerate(raws):
                self._deliver(store, raw, _BEFORE)
                if choice.random() < 0.3:
                    self._deliver(store, choice.choice(raws[: each + 1]), _BEFORE, new=False)
                if each == self.messages // 4:
                    self.begun.set()
            self.day.wait()
            for each, raw in enumerate(raws):
                self._deliver(store, raw, _AFTER)
                self._deliver(store, raw, _BEFORE, new=False)
                if choice.random() < 0.3:
                    self._deliver(store, choice.choice(raws[: each + 1]), _AFTER, new=False)

    def _deliver(self, store: MessageStore, raw: bytes, recipient: str, new: bool = True) -> None:
        while True:
            try:
                store.ingest(submission(raw, recipient))
            except StoreError as error:
                with self.lock:
                    self.row.statuses[error.outcome.status] += 1
                    if error.sqlstate not in ("40001", "40P01", "55P03"):
                        self.row.note(f"days: a delivery failed with {error.sqlstate} {error}")
                        return
                continue
            with self.lock:
                self.row.statuses[0] += 1
                if new:
                    self.ledger.send(raw, recipient)
            return


def run(scale: Scale, mode: Mode) -> Row:
    """Deliver, change the day, and remove days, all at once."""
    row = mode.row("days")
    with (
        account.folder("pipehandler-days-") as folder,
        PostgreSQL(folder / "pg", VERSION, FAST).start() as server,
        Database.fresh(server) as database,
    ):
        for number in range(_OLD[scale]):
            with closing(MessageStore(database.conninfo)) as store:
                store.ingest(submission(b"Message-ID: <old%d@example.org>\n\n" % number))
            make_older(database, 3 + number)
        database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
        drop_day(database, today())

        writers = _Writers(database, _MESSAGES[scale], row)
        thread = threading.Thread(target=writers.run)
        thread.start()
        writers.begun.wait()
        with closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as store:
            store.rows("SELECT pipehandler.create_days()")
            row.points += 1
            writers.day.set()
            removed: Counter[str] = Counter()
            while thread.is_alive() or any(day < today() for day in partitions(database)):
                with psycopg.connect(database.admin) as reader:
                    if row.points % 3 == 1 and thread.is_alive():
                        reader.execute("SELECT count(*) FROM pipehandler.message")
                    for counts in expiry.expire(store, ()):
                        removed.update(counts)
                    row.points += 1
                    reader.rollback()
                time.sleep(0.01)
        thread.join()
        if removed["days"] != _OLD[scale]:
            row.note(f"days: {removed['days']} days were removed, not {_OLD[scale]}")
        writers.ledger.check(database, row)
    return row
