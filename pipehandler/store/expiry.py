"""Removing what has expired: deliveries by the rules of retention and with their leases, bytes and attachments, leases.

It works in batches: one call of a function of sql/0008_retention.sql is one short transaction. Whatever ends a run, in between or
within one, leaves every message whole or gone, and the next run goes on. Deliveries come in meanwhile; where they
and a batch change the same rows, the batch is undone and tried again.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..settings.retention import PATTERNS, TIMES, Rule
from .connection import Store, StoreError
from .like import like

BATCH = 500

APPLIED, CHANGED = "applied", "changed"
"""After a change of the rules: deliveries to which they were applied, and those of them that are kept shorter or longer now."""

DELIVERIES, MESSAGES, RAWS, ATTACHMENTS, LEASES = "deliveries", "messages", "raws", "attachments", "leases"
"""What was removed. raws, attachments: the bytes, and contents of attachments, of messages that stay."""

WAITING = "waiting"
"""A transaction that may have read the old rules goes on: the next run will apply the new ones to what is stored."""

Counts = Counter[str]

_GRACE = "120 hours"
"""So long an expired lease is remembered without its mail: maximal_queue_lifetime of Postfix."""

_TRIES = 10
# serialization_failure, deadlock_detected, foreign_key_violation: a delivery came in between
_AGAIN = frozenset({"40001", "40P01", "23503"})
_PATIENCE = 5.0  # seconds for transactions that may have read the old rules

_SET = "SELECT pipehandler.set_retention(%s::jsonb) AS changed"
_UNDER_WAY = "SELECT EXISTS (SELECT FROM pipehandler.retention_change) AS changed"
_LEFT = """
SELECT count(*) FROM pipehandler.delivery d
 WHERE d.id > (SELECT c.through FROM pipehandler.retention_change c)
"""
_APPLY = "SELECT * FROM pipehandler.apply_retention(%s)"
_EXPIRE = """
SELECT deliveries, messages, raws, attachments, reached::text FROM pipehandler.expire(%s, %s::timestamptz)
"""
_LEASES = "SELECT leases, reached::text FROM pipehandler.remove_leases(%s, %s::timestamptz, %s::interval)"

_DUE = """
WITH delivery AS (
    SELECT d.message, coalesce(d.expires_at <= now(), false) OR coalesce(a.expires_at <= now(), false) AS expired,
           coalesce(d.raw_until > now(), true) AS raw, coalesce(d.attachments_until > now(), true) AS attachments
      FROM {} d
      LEFT JOIN pipehandler.address a ON a.lease = d.lease
),
message AS (
    SELECT d.message, count(*) FILTER (WHERE d.expired) AS deliveries, bool_and(d.expired) AS expired,
           coalesce(bool_or(d.raw) FILTER (WHERE NOT d.expired), false) AS raw,
           coalesce(bool_or(d.attachments) FILTER (WHERE NOT d.expired), false) AS attachments
      FROM delivery d
     GROUP BY d.message
)
SELECT coalesce(sum(m.deliveries), 0) AS deliveries, count(*) FILTER (WHERE m.expired) AS messages,
       count(*) FILTER (WHERE NOT m.expired AND NOT m.raw AND EXISTS (
           SELECT FROM pipehandler.raw_message r WHERE r.message = m.message)) AS raws,
       coalesce(sum((SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.message AND a.content IS NOT NULL))
                FILTER (WHERE NOT m.expired AND NOT m.attachments), 0) AS attachments,
       (SELECT count(*) FROM pipehandler.address a WHERE a.expires_at <= now() - %s::interval) AS leases
  FROM message m
"""
_CHANGED = """
SELECT count(*) AS changed
  FROM pipehandler.delivery d
  JOIN pipehandler.renewed_delivery n ON n.id = d.id
 WHERE (d.expires_at, d.raw_until, d.attachments_until) IS DISTINCT FROM (n.expires_at, n.raw_until, n.attachments_until)
"""


def expire(store: Store, rules: tuple[Rule, ...], batch: int = BATCH) -> Iterator[Counts]:
    """Bring the rules to the database, then remove what is due, `batch` deliveries at a time; after each batch its counts.

    Raises StoreError.
    """
    _again(store, _SET, [_json(rules)])
    yield from _apply(store, batch)
    for statement, *more in ((_EXPIRE,), (_LEASES, _GRACE)):
        reached: str | None = "-infinity"
        while reached is not None:
            row = _again(store, statement, [batch, reached, *more])
            reached = row.pop("reached")
            yield Counter(row)


def left(store: Store) -> int:
    """To how many deliveries changed rules are still to be applied."""
    return int(store.rows(_LEFT)[0]["count"])


def due(store: Store, rules: tuple[Rule, ...]) -> Counts:
    """What a run would remove now, and how many deliveries a change of the rules would change first; changes nothing.

    Reads all deliveries. Raises StoreError.
    """
    store.script("BEGIN")
    try:
        changed = store.rows(_SET, [_json(rules)])[0]["changed"] or store.rows(_UNDER_WAY)[0]["changed"]
        table = "pipehandler.renewed_delivery" if changed else "pipehandler.delivery"
        counts = Counter({name: int(count) for name, count in store.rows(_DUE.format(table), [_GRACE])[0].items()})
        if changed:
            counts += Counter(store.rows(_CHANGED)[0])
        return counts
    finally:
        with suppress(StoreError):
            store.script("ROLLBACK")


def _apply(store: Store, batch: int) -> Iterator[Counts]:
    """Apply changed rules to what is stored already."""
    given_up = time.monotonic() + _PATIENCE
    while True:
        row = _again(store, _APPLY, [batch])
        if row["waits"]:
            if time.monotonic() > given_up:
                yield Counter({WAITING: 1})
                return
            time.sleep(0.05)
        elif row["applied"]:
            yield Counter({APPLIED: row["applied"], CHANGED: row["changed"]})
        else:
            return


def _again(store: Store, statement: str, parameters: list[Any]) -> dict[str, Any]:
    """The one row of a statement, which is tried again where others changed the same rows."""
    for attempt in range(1, _TRIES + 1):
        try:
            return store.rows(statement, parameters)[0]
        except StoreError as error:
            if error.sqlstate not in _AGAIN or attempt == _TRIES:
                raise
            time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311 # jitter is no secret
    raise AssertionError("unreachable")


def _json(rules: tuple[Rule, ...]) -> str:
    """What pipehandler.set_retention is told."""
    tables = []
    for rule in rules:
        given = {key: value for key, value in rule._asdict().items() if value is not None}
        patterns = {key: like(value) for key, value in given.items() if key in PATTERNS}
        times = {key: int(value.total_seconds()) for key, value in given.items() if key in TIMES}
        tables.append(patterns | times)
    return json.dumps(tables, ensure_ascii=False)
