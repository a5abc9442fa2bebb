"""The stream of deliveries for an application: each once, in an order that never changes, as soon as it is committed.

The position in the stream is a cursor, which the caller keeps. A caller that saves it in the transaction in which it
uses the delivery uses each exactly once. The SQL function pipehandler.deliveries_after defines the order and gives that
guarantee; this module waits. A notification ends the wait; where none can arrive (PgBouncer in transaction mode, a
standby) the next poll does.
"""

import logging
import random
import time
from collections.abc import Generator
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

from .connection import Store
from .errors import READ_ONLY_SQL_TRANSACTION, StoreError
from .readable import mismatch, tolerant_rows

NOW = "now"
"""A cursor for `follow`: begin with the next delivery that is stored."""

_log = logging.getLogger(__name__)

_PAGE = 100  # deliveries that are fetched at once
_STATEMENT_SECONDS = 60

# Deliveries are committed, but have to wait for an older transaction that is still writing.
_SHORTEST, _LONGEST = 0.002, 0.1  # seconds until the next query

_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0  # seconds between two attempts to connect

# One statement, so that both are read in one snapshot: a delivery that comes later is announced later.
_AFTER = """
SELECT w.waiting, s.cursor, s.id, s.message::text, s.recipient, s.extension, s.lease, s.sender, s.from_name, s.from_address,
       s.subject, s.date, s.list_id, s.received_at, s.size, s.attachments, s.state
  FROM pipehandler.deliveries_waiting() AS w (waiting)
  LEFT JOIN pipehandler.deliveries_after(%s::text, %s::text, %s::bigint, %s::integer) WITH ORDINALITY AS s ON true
 ORDER BY s.ordinality
"""


class Delivery(NamedTuple):
    """One message for one recipient, as an inbox lists it; the view pipehandler.inbox has the rest, by `id`.

    cursor:    the position in the stream after this delivery.
    id:        the number of the delivery; message: the UUID of the message.
    recipient: the envelope recipient; extension: the part after its delimiter (user+extension@domain); lease: the lease
               that the delivery belongs to.
    sender:    the envelope sender, "" for the null sender; from_name, from_address: the first mailbox of From.
    date:      when it was sent, as the sender claims; received_at: when it was received here.
    size:      octets of the message; attachments: how many it has.
    state:     parsed, or failed: then only its raw bytes are stored, and most other fields are None.
    """

    cursor: str
    id: int
    message: str
    recipient: str
    extension: str | None
    lease: int | None
    sender: str
    from_name: str | None
    from_address: str | None
    subject: str | None
    date: datetime | None
    list_id: str | None
    received_at: datetime
    size: int
    attachments: int
    state: str


class _Streamed(NamedTuple):
    """A delivery and the position after it; None if its row cannot be read."""

    cursor: str
    delivery: Delivery | None


def follow(
    conninfo: str, cursor: str | None = "", *, recipient: str | None = None, lease: int | None = None, poll: float = 5.0
) -> Generator[Delivery, None, None]:
    """Yield the deliveries after `cursor`, and then, forever, each new one.

    conninfo:  a libpq connection string for a role in pipehandler_reader.
    cursor:    that of the last delivery that was used; "" or None begins with the first one that is stored, "now" with
               the next one.
    recipient: only mail for this address, compared without regard to case. lease: only mail of this lease.
    poll:      seconds until the next query if no notification arrives.

    Raises StoreError if the first connection fails, or the database refuses: a missing right, an invalid cursor. If
    the connection is lost later, that is logged, and the stream continues where it was as soon as the database is back.
    Close the iterator, or drop it, to end the connection.
    """
    with closing(Store(conninfo, statement_timeout=_STATEMENT_SECONDS)) as store:
        _open(store)
        position = _now(store) if cursor == NOW else cursor or ""
        pause, retry, lost = _SHORTEST, _FIRST_RETRY, False
        while True:
            deliveries: list[_Streamed] = []
            try:
                if store.socket is None:
                    _open(store)
                deliveries, waiting = _after(store, position, recipient, lease)
                if lost:
                    _log.warning("the database is back")
                retry, lost = _FIRST_RETRY, False
                if not deliveries:
                    notified = store.wait(min(pause, poll) if waiting else poll)
                    pause = _SHORTEST if notified or not waiting else min(2 * pause, _LONGEST)
            except StoreError as error:
                if error.permanent:
                    raise
                if not lost:
                    _log.warning("the database is away: %s", error)
                lost = True
                store.close()
                time.sleep(random.uniform(0.5, 1) * retry)  # noqa: S311 # jitter needs no secrecy
                retry = min(2 * retry, _LAST_RETRY)
            for streamed in deliveries:
                if streamed.delivery is not None:
                    yield streamed.delivery
                position = streamed.cursor


def _open(store: Store) -> None:
    """Connect, and listen unless the server is a standby, which cannot."""
    try:
        store.listen()
    except StoreError as error:
        if error.sqlstate != READ_ONLY_SQL_TRANSACTION:
            raise


def _now(store: Store) -> str:
    (cursor,) = store.values("SELECT pipehandler.cursor_now()", of=str)
    return cursor


def _after(store: Store, position: str, recipient: str | None, lease: int | None) -> tuple[list[_Streamed], bool]:
    """The next deliveries, and whether others are committed that have to wait."""
    rows = tolerant_rows(store, _AFTER, [position, recipient, lease, _PAGE])
    # The only row has no cursor if none may come yet.
    return [_streamed(row) for row in rows if row["cursor"]], bool(rows[0]["waiting"])


def _streamed(columns: dict[str, Any]) -> _Streamed:
    columns = {name: columns[name] for name in Delivery._fields}
    wrong = mismatch(columns, Delivery)
    if wrong:
        _log.warning("delivery %s cannot be read and is left out: %s", columns["id"], wrong)
    return _Streamed(columns["cursor"], None if wrong else Delivery(**columns))
