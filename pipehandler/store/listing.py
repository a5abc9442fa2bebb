"""The list of deliveries, behind `pipehandler list`. Expired mail is not in it, whether or not it was removed already."""

from dataclasses import dataclass
from datetime import datetime

from ..mail.envelope import lower_domain
from .connection import Store
from .like import escaped, like
from .readable import readable_rows

_LIST = """
SELECT d.id, d.received_at, d.recipient, d.sender, m.from_name, m.from_address, m.subject, m.size, m.state,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id) AS attachments, m.id::text AS message,
       d.lease, d.extension, m.preview,
       pipehandler.is_automatic(d.sender, m.auto_submitted, m.precedence, m.list_id, m.report) AS automatic
  FROM pipehandler.current_delivery d
  JOIN pipehandler.message m ON m.id = d.message
 WHERE (%(recipient)s::text IS NULL OR d.recipient LIKE %(recipient)s)
   AND (%(lease)s::bigint IS NULL OR d.lease = %(lease)s)
   AND (%(sender)s::text IS NULL OR d.sender ILIKE %(sender)s OR m.from_address ILIKE %(sender)s
        OR m.from_name ILIKE %(sender)s)
   AND (%(subject)s::text IS NULL OR m.subject ILIKE %(subject)s)
   AND (%(since)s::timestamptz IS NULL OR d.received_at >= %(since)s)
   AND (%(until)s::timestamptz IS NULL OR d.received_at < %(until)s)
   AND (%(state)s::text IS NULL OR m.state = %(state)s)
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


def deliveries(
    store: Store,
    *,
    recipient: str | None = None,
    lease: int | None = None,
    sender: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    state: str | None = None,
    limit: int = 20,
) -> list[Entry]:
    """The newest deliveries first, at most `limit`.

    recipient: an address in which * matches anything. lease: the lease that the delivery belongs to. sender: a part of
    the envelope sender or of From; subject: a part of the subject; both ignore case. since is inclusive, until
    exclusive. state: of the message, parsed or failed. Rows that cannot be read are left out and logged
    (store/readable.py). Raises StoreError.
    """
    parameters = {
        "recipient": like(lower_domain(recipient)) if recipient else None,
        "lease": lease,
        "sender": f"%{escaped(sender)}%" if sender else None,
        "subject": f"%{escaped(subject)}%" if subject else None,
        "since": since,
        "until": until,
        "state": state,
        "limit": limit,
    }
    return readable_rows(store, _LIST, parameters, Entry, "delivery", "id")
