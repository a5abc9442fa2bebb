"""Remove what has expired: deliveries, by the rules of retention or with their leases; raw bytes; attachments; leases.

It works in batches: one call of an SQL function is one short transaction. Whatever ends a run, between two batches or
inside one, leaves every message whole or gone, and the next run continues. Mail is delivered meanwhile; if a delivery
and a batch change the same rows, the batch is rolled back and tried again.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from ..settings.retention import PATTERNS, TIMES, Rule
from .connection import Parameters, Store
from .errors import CONFLICTS, CONTENTION, StoreError, retried
from .like import like

_T = TypeVar("_T")

BATCH = 500

_OF_A_DAY = 20_000
"""Deliveries of a day whose messages are gone; removing them touches no other row."""

APPLIED, CHANGED = "applied", "changed"
"""After a change of the rules: deliveries to which they were applied; those of them whose time changed."""

DELIVERIES, MESSAGES, ATTACHMENTS, LEASES = "deliveries", "messages", "attachments", "leases"
RAW_MESSAGES = "raw_messages"
"""What was removed. raw_messages, attachments: raw bytes, and contents of attachments, of messages that stay."""

DAYS = "days"
"""Days that were removed as a whole, with all their messages, which are not counted otherwise."""

WAITING = "waiting"
"""A transaction that may have read the old rules is still running: the next run applies the new ones to stored mail."""

SKIPPED = "skipped"
"""Deliveries that cannot be changed or removed, because of damage for example. All others are."""

HELD, STORED = "held", "stored"
"""The rules have changed and wait for a confirmation: deliveries that they would remove something of within a day, of all."""

Counts = Counter[str]
"""How many, by the names above."""

GRACE = "120 hours"
"""How long an expired lease is kept without its mail: maximal_queue_lifetime of Postfix."""

_TRIES = 10
_PAUSE = (0.01, 0.05)  # seconds
_PATIENCE = 5.0  # seconds to wait for transactions that may have read the old rules

_CHANGE = "SELECT changed, held, deliveries, stored FROM pipehandler.change_retention(%s::jsonb, %s)"
_APPLY = "SELECT waits, applied, changed, skipped FROM pipehandler.apply_rules(%s)"
_EXPIRE = """
SELECT next_from::text, deliveries, messages, raw_messages, attachments, skipped
  FROM pipehandler.expire(%s, %s::timestamptz)
"""
_CREATE_DAYS = "SELECT pipehandler.create_days()"
_DAYS = "SELECT days, deliveries, more FROM pipehandler.remove_days(%s)"
_LEASES = "SELECT next_from::text, leases FROM pipehandler.remove_leases(%s, %s::timestamptz, %s::interval)"


class Removed(NamedTuple):
    """What one batch removed. next_from: where the next one begins; None: nothing is left."""

    next_from: str | None
    deliveries: int = 0
    messages: int = 0
    raw_messages: int = 0
    attachments: int = 0
    leases: int = 0
    skipped: Sequence[int] = ()

    @property
    def counts(self) -> Counts:
        return Counter(
            {
                DELIVERIES: self.deliveries,
                MESSAGES: self.messages,
                RAW_MESSAGES: self.raw_messages,
                ATTACHMENTS: self.attachments,
                LEASES: self.leases,
            }
        )


class _Days(NamedTuple):
    """What one step removed of a day that goes as a whole. more: whether there is another step."""

    days: int
    deliveries: int
    more: bool

    @property
    def counts(self) -> Counts:
        return Counter({DAYS: self.days, DELIVERIES: self.deliveries})


class Change(NamedTuple):
    """Whether the rules changed; whether they wait for a person, because of how many of the stored deliveries."""

    changed: bool
    held: bool
    deliveries: int | None
    stored: int | None

    @property
    def counts(self) -> Counts:
        if not self.held:
            return Counter()
        return Counter({HELD: self.deliveries or 1, STORED: self.stored or 1})


class _Applied(NamedTuple):
    """One batch of deliveries to which changed rules were applied. waits: an older transaction has to end first."""

    waits: bool
    applied: int
    changed: int
    skipped: Sequence[int] = ()


def expire(
    store: Store,
    rules: tuple[Rule, ...],
    batch: int = BATCH,
    report: Callable[[int], object] = lambda delivery: None,
    max_percent: int = 100,
) -> Iterator[Counts]:
    """Copy the rules to the database, then remove what is due, `batch` deliveries at a time.

    Yields the counts of each batch. `report` is called once with the number of each delivery that was skipped. max_percent: of
    the stored deliveries; changed rules that would remove something of more than that wait, and those before them stay in
    force. Raises StoreError.
    """
    skipped: set[int] = set()

    def skip(deliveries: Sequence[int]) -> Counts:
        new = set(deliveries) - skipped
        skipped.update(new)
        for delivery in sorted(new):
            report(delivery)
        return Counter({SKIPPED: len(new)})

    yield retried(lambda: change_rules(store, rules, max_percent), CONFLICTS, _TRIES, _PAUSE).counts
    yield from _apply(store, batch, skip)
    failures: list[StoreError] = []
    for step in (_create_days, _remove_days):
        try:
            yield from step(store)
        except StoreError as error:
            if error.stale:
                raise
            failures.append(error)
    yield from _remove(store, _EXPIRE, batch, skip)
    yield from _remove(store, _LEASES, batch, skip, GRACE)
    if failures:
        raise failures[0]


def change_rules(store: Store, rules: tuple[Rule, ...], max_percent: int) -> Change:
    """Copy the rules to the database, unless they wait (see `expire`). Raises StoreError."""
    (change,) = store.rows(_CHANGE, [_json(rules), max_percent], row=Change)
    return change


_Skip = Callable[[Sequence[int]], Counts]
"""Notes the deliveries that a batch skipped, and counts those that are new."""


def _apply(store: Store, batch: int, skip: _Skip) -> Iterator[Counts]:
    """Apply changed rules to stored deliveries."""
    end = time.monotonic() + _PATIENCE
    while True:
        step = _row(store, _APPLY, [batch], _Applied)
        if step.waits:
            if time.monotonic() > end:
                yield Counter({WAITING: 1})
                return
            time.sleep(0.05)
        elif step.applied:
            yield Counter({APPLIED: step.applied, CHANGED: step.changed}) + skip(step.skipped)
        else:
            return


def _create_days(store: Store) -> Iterator[Counts]:
    """Create the partitions of the coming week. Where a lock is not free (VACUUM may hold it), the next run does."""
    try:
        store.rows(_CREATE_DAYS)
    except StoreError as error:
        if error.sqlstate not in CONTENTION:
            raise
    yield Counter()


def _remove_days(store: Store) -> Iterator[Counts]:
    """Remove days all of whose mail has expired. One that another session uses for long waits for the next run."""
    more = True
    while more:
        removed = retried(lambda: store.rows(_DAYS, [_OF_A_DAY], row=_Days)[0], CONTENTION, _TRIES, _PAUSE)
        more = removed.more
        yield removed.counts


def _remove(store: Store, statement: str, batch: int, skip: _Skip, *parameters: str) -> Iterator[Counts]:
    """Call a function that removes one batch until nothing is left. Each batch has room for the rows that were skipped, so
    that they never hide others that are due at the same moment."""
    next_from: str | None = "-infinity"
    known = 0
    while next_from is not None:
        removed = _row(store, statement, [batch + known, next_from, *parameters], Removed)
        new = skip(removed.skipped)
        known += new[SKIPPED]
        if removed.counts.total() or not new[SKIPPED]:
            next_from = removed.next_from  # otherwise the same moment again, with more room
        yield removed.counts + new


def _row(store: Store, statement: str, parameters: Parameters, row: type[_T]) -> _T:
    """The one row of a statement, which is tried again if a delivery changed the same rows."""
    return retried(lambda: store.rows(statement, parameters, row=row)[0], CONFLICTS, _TRIES, _PAUSE)


def _json(rules: tuple[Rule, ...]) -> str:
    """The rules as pipehandler.set_retention takes them: patterns for LIKE, times in seconds."""
    tables = []
    for rule in rules:
        keys = {key: value for key, value in rule._asdict().items() if value is not None}
        patterns = {key: like(value) for key, value in keys.items() if key in PATTERNS}
        times = {key: int(value.total_seconds()) for key, value in keys.items() if key in TIMES}
        tables.append(patterns | times)
    return json.dumps(tables, ensure_ascii=False)
