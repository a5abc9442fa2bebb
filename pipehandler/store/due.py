"""What a run of `expire` would do now. Each question is a transaction that is rolled back: nothing is changed."""

from contextlib import suppress

from ..settings.retention import Rule
from .connection import Store
from .errors import StoreError
from .expiry import CHANGED, GRACE, Counts, Removed, change_rules

_UNDER_WAY = "SELECT EXISTS (SELECT FROM pipehandler.retention_change)"
_DUE = """
WITH delivery AS (
    SELECT d.day, d.message,
           coalesce(d.expires_at <= now(), false)
           AND d.day <> ALL (ARRAY(SELECT y.day FROM pipehandler.days() AS y WHERE y.waits AND y.last_due > now()))
           OR coalesce(CASE WHEN w.lease IS NULL THEN a.expires_at ELSE w.mail_until END <= now(), false) AS expired,
           coalesce(d.raw_until > now(), true) AS raw, coalesce(d.attachments_until > now(), true) AS attachments
      FROM {} d
      LEFT JOIN pipehandler.address a ON a.lease = d.lease
      LEFT JOIN pipehandler.web_inbox w ON w.lease = d.lease
),
message AS (
    SELECT d.day, d.message, count(*) FILTER (WHERE d.expired) AS deliveries, bool_and(d.expired) AS expired,
           coalesce(bool_or(d.raw) FILTER (WHERE NOT d.expired), false) AS raw,
           coalesce(bool_or(d.attachments) FILTER (WHERE NOT d.expired), false) AS attachments
      FROM delivery d
     GROUP BY d.day, d.message
)
SELECT NULL AS next_from, coalesce(sum(m.deliveries), 0)::bigint AS deliveries,
       count(*) FILTER (WHERE m.expired) AS messages,
       count(*) FILTER (WHERE NOT m.expired AND NOT m.raw AND EXISTS (
           SELECT FROM pipehandler.raw_message r WHERE r.day = m.day AND r.message = m.message)) AS raw_messages,
       coalesce(sum((SELECT count(*) FROM pipehandler.attachment a
                      WHERE a.day = m.day AND a.message = m.message AND a.content IS NOT NULL))
                FILTER (WHERE NOT m.expired AND NOT m.attachments), 0)::bigint AS attachments,
       (SELECT count(*)
          FROM pipehandler.address a
          LEFT JOIN pipehandler.web_inbox w ON w.lease = a.lease
         WHERE a.expires_at <= now() - %s::interval AND coalesce(w.mail_until <= now(), true)) AS leases
  FROM message m
"""
_CHANGED = """
SELECT count(*)
  FROM pipehandler.delivery d
  JOIN pipehandler.delivery_under_current_rules n ON n.id = d.id
 WHERE (d.expires_at, d.raw_until, d.attachments_until) IS DISTINCT FROM (n.expires_at, n.raw_until, n.attachments_until)
"""


def due(store: Store, rules: tuple[Rule, ...], max_percent: int = 100) -> Counts:
    """What a run would remove now, and how many deliveries a change of the rules would change first; changes nothing.

    Reads all deliveries. Raises StoreError.
    """
    store.script("BEGIN")
    try:
        change = change_rules(store, rules, max_percent)
        (under_way,) = store.values(_UNDER_WAY, of=bool)
        table = "pipehandler.delivery_under_current_rules" if change.changed or under_way else "pipehandler.delivery"
        (removed,) = store.rows(_DUE.format(table), [GRACE], row=Removed)
        counts = removed.counts + change.counts
        if change.changed or under_way:
            (counts[CHANGED],) = store.values(_CHANGED, of=int)
        return counts
    finally:
        with suppress(StoreError):
            store.script("ROLLBACK")


def rules_differ(store: Store, rules: tuple[Rule, ...]) -> bool:
    """Whether the database has other rules than these; changes nothing. Raises StoreError."""
    store.script("BEGIN")
    try:
        return change_rules(store, rules, 100).changed
    finally:
        with suppress(StoreError):
            store.script("ROLLBACK")
