"""The stream of deliveries for an application: each once, in an order that never changes, as soon as it is committed.

The place in the stream is a cursor, which the caller keeps: whoever saves it in the transaction in which it uses the delivery has
used each exactly once. The order and the promise are those of the SQL function pipehandler.deliveries_after; here is the
waiting. A notification ends it; where none can come (PgBouncer in transaction mode, a standby) the next poll does.
"""

import logging
import random
import time
from collections.abc import Generator
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

from .connection import Store, StoreError

NOW = "now"
"""A cursor for `follow`: begin with what comes from now on."""

_log = logging.getLogger(__name__)

_PAGE = 100  # deliveries that are fetched at once
_STATEMENT_SECONDS = 60

# Something is committed that may not come before what an older transaction is still writing.
_SHORTEST, _LONGEST = 0.002, 0.1  # seconds until it is looked for again

_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0  # seconds between two attempts to connect

_READ_ONLY = "25006"  # a standby, which cannot listen
# Classes of SQLSTATE: what the database will say again however often it is asked.
_LASTING = frozenset({"0A", "22", "28", "3D", "3F", "42", "P0"})

# One statement, so that both are seen at the same moment: what comes later is announced later.
_AFTER = """
SELECT w.waiting, s.cursor, s.id, s.message::text, s.recipient, s.extension, s.lease, s.sender, s.from_name, s.from_address,
       s.subject, s.date, s.list_id, s.received_at, s.size, s.attachments, s.state
  FROM pipehandler.deliveries_waiting() AS w (waiting)
  LEFT JOIN pipehandler.deliveries_after(%s::text, %s::text, %s::bigint, %s::integer) WITH ORDINALITY AS s ON true
 ORDER BY s.ordinality
"""


class Delivery(NamedTuple):
    """One message for one recipient, as an inbox lists it; the view pipehandler.inbox has the rest, by `id`.

    cursor:    where the stream goes on after this delivery.
    id:        the number of the delivery; message: the UUID of the message.
    recipient: the envelope recipient; extension: what stands behind its delimiter (user+extension@domain); lease: the lease
               of the address to which the delivery belongs.
    sender:    the envelope sender, "" for the null sender; from_name, from_address: the first mailbox of From.
    date:      when it was sent, as the sender claims; received_at: when it was received here.
    size:      octets of the message; attachments: how many it has.
    state:     parsed, or failed: then only its bytes are stored, and most of the rest is None.
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


def follow(
    conninfo: str, cursor: str | None = "", *, recipient: str | None = None, lease: int | None = None, poll: float = 5.0
) -> Generator[Delivery, None, None]:
    """The deliveries after `cursor`, and then, for ever, those that come.

    conninfo: a libpq connection string for a role in pipehandler_reader.
    cursor: that of the last delivery that was used; "" or None to begin with the first one, "now" with the next one.
    recipient: only what is for this address, compared without regard to case; lease: only what belongs to this lease.
    poll: seconds after which it is looked for new ones even though nobody told of them.

    Raises StoreError where the database cannot be reached at the first time, or refuses: a missing right, an unknown cursor. When it
    goes away later, that is logged, and the stream goes on where it was as soon as it is back. Close the iterator, or drop it, to
    end the connection.
    """
    with closing(Store(conninfo, statement_timeout=_STATEMENT_SECONDS)) as store:
        _open(store)
        place = _now(store) if cursor == NOW else cursor or ""
        pause, retry, away = _SHORTEST, _FIRST_RETRY, False
        while True:
            page: list[Delivery] = []
            try:
                if store.socket is None:
                    _open(store)
                page, waiting = _after(store, place, recipient, lease)
                if away:
                    _log.warning("the database is back")
                retry, away = _FIRST_RETRY, False
                if not page:
                    heard = store.wait(min(pause, poll) if waiting else poll)
                    pause = _SHORTEST if heard or not waiting else min(2 * pause, _LONGEST)
            except StoreError as error:
                if error.sqlstate[:2] in _LASTING:
                    raise
                if not away:
                    _log.warning("the database is away: %s", error)
                away = True
                store.close()
                time.sleep(random.uniform(0.5, 1) * retry)  # noqa: S311 # jitter is no secret
                retry = min(2 * retry, _LAST_RETRY)
            for each in page:
                yield each
                place = each.cursor


def _open(store: Store) -> None:
    """Connect, and listen where that is possible."""
    try:
        store.listen()
    except StoreError as error:
        if error.sqlstate != _READ_ONLY:
            raise


def _now(store: Store) -> str:
    return str(store.rows("SELECT pipehandler.cursor_now() AS cursor")[0]["cursor"])


def _after(store: Store, place: str, recipient: str | None, lease: int | None) -> tuple[list[Delivery], bool]:
    """The next deliveries, and whether there are some that are committed and may not come yet."""
    rows = store.rows(_AFTER, [place, recipient, lease, _PAGE])
    page = [Delivery(**{name: row[name] for name in Delivery._fields}) for row in rows if row["cursor"]]
    return page, rows[0]["waiting"]
