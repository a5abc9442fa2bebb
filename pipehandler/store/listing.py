"""The list of deliveries, behind `pipehandler list`. Expired mail is not in it, whether or not it was removed already."""

from dataclasses import dataclass
from datetime import datetime

from .connection import Store
from .filters import EVERYTHING, Filters
from .readable import readable_rows

# First the deliveries, then their messages: only then it is known to which days these belong, and a statement that names
# the days reads no other partitions.
_NEWEST = """
SELECT d.id, d.day
  FROM pipehandler.current_delivery d
 WHERE {}
 ORDER BY d.id DESC
 LIMIT %(limit)s
"""

_LIST = """
SELECT d.id, d.received_at, d.recipient, d.sender, m.from_name, m.from_address, m.subject, m.size, m.state,
       (SELECT count(*) FROM pipehandler.attachment a WHERE {attachments} a.day = m.day AND a.message = m.id) AS attachments,
       m.id::text AS message,
       d.lease, d.extension, m.preview,
       pipehandler.is_automatic(d.sender, m.auto_submitted, m.precedence, m.list_id, m.report) AS automatic
  FROM pipehandler.current_delivery d
  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message
 WHERE {messages} {condition}
 ORDER BY d.id DESC
 LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery in a list, with the main columns of its message.

    id: the number of the delivery; message: the UUID of the message. size: octets of the message. attachments: their
    number. automatic: a program sent it. preview: None where it was stored by an earlier release.
    """

    id: int
    received_at: datetime
    recipient: str
    sender: str
    from_name: str | None
    from_address: str | None
    subject: str | None
    size: int
    state: str
    attachments: int
    message: str
    lease: int | None
    extension: str | None
    preview: str | None
    automatic: bool


def deliveries(store: Store, filters: Filters = EVERYTHING, limit: int = 20) -> list[Entry]:
    """The newest deliveries that `filters` select, at most `limit`, newest first.

    A search in messages (sender, subject, state) reads all days. Rows that cannot be read are left out and logged
    (store/readable.py). Raises StoreError.
    """
    condition, parameters = filters.condition()
    parameters["limit"] = limit
    named = {"messages": "", "attachments": ""}
    if not filters.of_messages:
        newest = store.rows(_NEWEST.format(condition), parameters)
        condition = "d.id = ANY (%(ids)s::bigint[])"
        parameters = {
            "ids": [row["id"] for row in newest],
            "days": list({row["day"] for row in newest}),
            "limit": limit,
        }
        named = {"messages": "m.day = ANY (%(days)s::date[]) AND", "attachments": "a.day = ANY (%(days)s::date[]) AND"}
    return readable_rows(store, _LIST.format(condition=condition, **named), parameters, Entry, "delivery", "id")
