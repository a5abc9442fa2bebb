"""Retention rules: how long it takes to apply changed rules to stored mail, and what long addresses cost a delivery.

    bench/run rules [--messages 1000000] [--rules 1000] [--octets 1000000]

The messages are inserted into the tables directly, as in `expiry`. Every rule has a pattern for the sender that no
message matches, so all of them are tried. The rules are applied as `pipehandler expire` does it, in batches of its
size, each of which is a transaction. Meanwhile a second session stores one message after another, and a third counts
the locks of the first. Then one message is stored whose addresses, texts and List-Id all have `octets` octets, of the
characters that are slowest to fold.
"""

import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
from expiry import POOL, STORE
from harness.database import Database
from harness.days import UNDATED
from harness.submission import INGEST, submission
from report import Aim, Report, Table
from setting import Setting

from pipehandler.settings.retention import Rule
from pipehandler.store import expiry
from pipehandler.store.message_store import MessageStore

SMALL = {"messages": 2_000, "rules": 20, "octets": 10_000}
_TOGETHER = 1_000  # messages in one transaction
_ALPHABETS = {"letters after xn--": "xn--a9", "combining marks": "\u0301\u0323", "U+FDFA": "\ufdfa", "@": "@"}


def measure(setting: Setting, *, messages: int = 1_000_000, rules: int = 1_000, octets: int = 1_000_000) -> Report:
    """Apply rules to stored mail, then store mail with long values; raises if a delivery was left out."""
    with Database.fresh(setting.server) as database:
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(POOL)
            for first in range(1, messages + 1, _TOGETHER):
                values = {"first": first, "last": min(first + _TOGETHER - 1, messages), "day": UNDATED}
                connection.execute(STORE, values)
            connection.execute("UPDATE pipehandler.delivery SET expires_at = NULL")
            connection.execute("VACUUM ANALYZE pipehandler.delivery")
        rows: list[list[object]] = []
        longest = 0.0
        meanwhile = 0.0
        for number in sorted({0, 1, rules}):
            patterns = tuple(Rule(sender=f"*@nobody{n}.example", keep=timedelta(days=30)) for n in range(number))
            chosen = (*patterns, Rule(recipient="*", keep=timedelta(days=365 + number)))
            with _others(database) as others:
                batches = _apply(database, chosen, messages)
            seconds, longest, meanwhile = sum(batches), max(batches), max(others.seconds)
            rows.append(
                [
                    *(len(chosen), messages, seconds, messages / seconds),
                    *(1000 * statistics.median(batches), 1000 * longest, others.locks, others.waiting),
                    *(1000 * statistics.median(others.seconds), 1000 * meanwhile),
                ]
            )
        long = [_long(database, alphabet, octets) for alphabet in _ALPHABETS]
    note = (
        f"One transaction has at most {expiry.BATCH} deliveries, and as many row locks. Locks: those of relations and transactions."
        f" Long values: {octets:,} octets each, with {rules + 1} rules."
    )
    return Report(
        [
            Table(
                "A change of rules",
                [
                    *("rules", "deliveries", "s", "deliveries/s", "transaction ms", "longest", "locks", "waited for"),
                    *("delivery meanwhile ms", "longest"),
                ],
                rows,
                note,
            ),
            Table("Long values", ["made of", "ingest ms"], [list(row) for row in long]),
        ],
        [
            Aim("longest transaction while rules are applied, s", longest, 5),
            Aim("longest delivery meanwhile, s", meanwhile, 5),
            Aim("one delivery with long values, s", max(row[1] for row in long) / 1000, 1),
        ],
    )


@dataclass
class _Others:
    """What other sessions saw: the seconds of each delivery, the most locks, and the most locks that a session waited
    for."""

    seconds: list[float] = field(default_factory=list)
    locks: int = 0
    waiting: int = 0


_LOCKS = """
SELECT count(*) FILTER (WHERE l.granted) AS held,
       count(*) FILTER (WHERE EXISTS (SELECT FROM pg_stat_activity b WHERE a.pid = ANY (pg_blocking_pids(b.pid)))) AS waiting
  FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
 WHERE a.query LIKE '%%pipehandler.apply_rules(%%' AND a.state = 'active' AND a.pid <> pg_backend_pid()
"""


@contextmanager
def _others(database: Database) -> Iterator[_Others]:
    """Deliver, and count locks, until the block ends."""
    seen, ends = _Others(), threading.Event()

    def deliver() -> None:
        with closing(MessageStore(database.conninfo, statement_timeout=600)) as store:
            while not seen.seconds or not ends.wait(0.05):
                raw = b"Message-ID: <%d@example.org>\n\nbody\n" % time.monotonic_ns()
                began = time.monotonic()
                store.ingest(submission(raw))
                seen.seconds.append(time.monotonic() - began)

    def count() -> None:
        with psycopg.connect(database.admin, autocommit=True) as connection:
            while not ends.wait(0.05):
                held, waiting = connection.execute(_LOCKS).fetchone() or (0, 0)
                seen.locks, seen.waiting = max(seen.locks, held), max(seen.waiting, waiting)

    threads = [threading.Thread(target=each) for each in (deliver, count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def _apply(database: Database, rules: tuple[Rule, ...], messages: int) -> list[float]:
    """Load rules into the database and apply them; returns the seconds of each batch. Raises if a delivery was left
    out."""
    batches, applied = [], 0
    with closing(MessageStore(database.admin, statement_timeout=600)) as store:
        before = time.monotonic()
        for counts in expiry.expire(store, rules, max_percent=20):
            batches.append(time.monotonic() - before)
            before = time.monotonic()
            applied += counts[expiry.APPLIED]
    if applied < messages:
        raise RuntimeError(f"the rules were applied to {applied} deliveries, not to {messages}")
    return batches


def _long(database: Database, alphabet: str, octets: int) -> tuple[str, float]:
    """Store one message; returns what its values are made of, and the milliseconds."""
    letters = _ALPHABETS[alphabet]
    text = "a@" + letters * (octets // len(letters.encode()))
    envelope, parsed, *rest = submission(alphabet.encode()).arguments()
    view = json.loads(parsed) | {"subject": text, "list_id": text, "message_id": text}
    view["from_list"] = [{"name": text, "address": text, "group": ""}]
    changed = json.loads(envelope) | {"sender": text, "recipients": [{"recipient": text, "original_recipient": None}]}
    with closing(MessageStore(database.conninfo, statement_timeout=600)) as store:
        store.script("SELECT 1")
        began = time.monotonic()
        store.rows(INGEST, [json.dumps(changed), json.dumps(view), *rest])
        return alphabet, 1000 * (time.monotonic() - began)
