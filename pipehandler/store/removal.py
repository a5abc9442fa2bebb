"""Remove deliveries for good, behind `pipehandler remove`: expired ones as well, and each message with its last delivery.

It works in batches, each one transaction (the SQL function pipehandler.remove_deliveries). Whatever ends a run leaves every
delivery whole or gone. Every function raises StoreError if the database fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .connection import Store
from .errors import CONFLICTS, retried
from .filters import Filters

_BATCH = 500
_RECIPIENTS = 10  # that a selection names
_TRIES = 10
_PAUSE = (0.01, 0.05)  # seconds

_SELECTED = """
WITH selected AS MATERIALIZED (
    SELECT d.id, d.day, d.message, d.recipient
      FROM pipehandler.delivery d
      LEFT JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message
     WHERE {}
),
message AS (
    SELECT s.day, s.message, count(*) AS deliveries FROM selected s GROUP BY s.day, s.message
),
recipient AS (
    SELECT s.recipient, count(*) AS deliveries FROM selected s GROUP BY s.recipient
)
SELECT (SELECT count(*) FROM selected) AS deliveries,
       (SELECT count(*) FROM message c
         WHERE c.deliveries = (SELECT count(*) FROM pipehandler.delivery d
                                WHERE d.day = c.day AND d.message = c.message)) AS messages,
       (SELECT count(*) FROM recipient) AS recipients,
       (SELECT max(s.id) FROM selected s) AS last,
       ARRAY(SELECT r.recipient FROM recipient r ORDER BY r.deliveries DESC, r.recipient LIMIT %(recipients)s) AS examples
"""
_IDS = """
SELECT d.id
  FROM pipehandler.delivery d
  LEFT JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message
 WHERE {} AND d.id > %(after)s AND d.id <= %(last)s
 ORDER BY d.id
 LIMIT %(batch)s
"""
_REMOVE = "SELECT deliveries, messages FROM pipehandler.remove_deliveries(%s::bigint[])"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a removal would take.

    deliveries; messages: those whose last delivery is among them. recipients: how many different ones. last: the greatest
    number of a delivery, None if there is none. examples: the recipients with most of the deliveries.
    """

    deliveries: int
    messages: int
    recipients: int
    last: int | None
    examples: list[str]


class Removed(NamedTuple):
    """What one batch removed."""

    deliveries: int
    messages: int


def selection(store: Store, filters: Filters) -> Selection:
    """Count what `filters` select now."""
    condition, parameters = filters.condition()
    (row,) = store.rows(_SELECTED.format(condition), {**parameters, "recipients": _RECIPIENTS}, row=Selection)
    return row


def remove(store: Store, filters: Filters, last: int) -> Iterator[Removed]:
    """Remove what `filters` select, but nothing that was stored after the delivery `last`; yields each batch."""
    condition, parameters = filters.condition()
    statement = _IDS.format(condition)
    parameters |= {"after": 0, "last": last, "batch": _BATCH}
    while ids := store.values(statement, parameters, of=int):
        yield _remove(store, ids)
        parameters["after"] = ids[-1]


def _remove(store: Store, ids: list[int]) -> Removed:
    return retried(lambda: store.rows(_REMOVE, [ids], row=Removed)[0], CONFLICTS, _TRIES, _PAUSE)
