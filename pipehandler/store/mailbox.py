"""What arrived: the queries behind `pipehandler list`, `show`, `raw` and `attachment`.

What has expired is not there any more, whether or not `pipehandler expire` has removed it already. An id is either the number
of a delivery or the UUID of a message. Every function raises StoreError where the database does not answer, and NoSuchMessage where
the id names nothing.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from ..mail.envelope import lower_domain
from .connection import Store
from .like import escaped, like

Row = dict[str, Any]

_LIST = """
SELECT d.id, d.received_at, d.recipient, d.sender, m.from_name, m.from_address, m.subject, m.size, m.state,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id) AS attachments, m.id::text AS message,
       d.lease, d.extension
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

_MESSAGE = """
SELECT m.id::text, m.received_at, m.message_id, m.in_reply_to, m.reference_ids, m.date, m.date_offset, m.subject,
       m.from_list, m.sender_list, m.reply_to_list, m.to_list, m.cc_list, m.bcc_list, m.list_id, m.text_body,
       m.html_body, m.header, m.authentication, m.size, encode(m.sha256, 'hex') AS sha256, m.state, m.error, m.defects,
       m.parser
  FROM pipehandler.message m
 WHERE m.id = %s::uuid
"""

_DELIVERIES = """
SELECT d.id, d.message::text, d.recipient, d.original_recipient, d.sender, d.queue_id, d.mail_host, d.ingress,
       host(d.client_address) AS client_address, d.client_hostname, d.client_helo, d.client_port, d.client_protocol,
       d.sasl_username, d.received_at, d.stored_at, d.lease, d.expires_at, d.raw_until, d.attachments_until, d.extension
  FROM pipehandler.current_delivery d
 WHERE d.message = %s::uuid
 ORDER BY d.id
"""

_ATTACHMENTS = """
SELECT a.ordinal, a.part, a.file_name, a.content_type, a.content_id, a.disposition, a.size,
       encode(a.sha256, 'hex') AS sha256
  FROM pipehandler.attachment a
 WHERE a.message = %s::uuid
 ORDER BY a.ordinal
"""


class NoSuchMessage(Exception):
    """The id names nothing that is stored; the text says what was looked for and what to do."""


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
) -> list[Row]:
    """The newest deliveries first, at most `limit`.

    `recipient` is an address in which * stands for anything; `lease` the one to which they belong; `sender` is looked for within
    the envelope sender and From, `subject` within Subject, both without regard to case; `since` is inclusive, `until` is not; `state`
    is that of the message.
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
    return store.rows(_LIST, parameters)


def message(store: Store, name: str) -> Row:
    """One message, with its "deliveries" and its "attachments" (without their content)."""
    found = _find(store, name)
    rows = store.rows(_MESSAGE, [found])
    if not rows:  # removed at this moment
        raise _nothing(name)
    row = rows[0]
    row["deliveries"] = store.rows(_DELIVERIES, [found])
    row["attachments"] = store.rows(_ATTACHMENTS, [found])
    return row


def raw(store: Store, name: str) -> bytes:
    """The exact bytes: of a delivery with what Postfix prepended for it, of a message without."""
    found = _find(store, name)
    delivery = int(name) if _is_number(name) else None
    rows = store.rows(
        "SELECT coalesce((SELECT prepended FROM pipehandler.current_delivery WHERE id = %s), '') || r.raw AS raw"
        "  FROM pipehandler.raw_message r WHERE r.message = %s::uuid",
        [delivery, found],
    )
    if not rows:
        raise NoSuchMessage(f"the bytes of {name} are not stored any more")
    return bytes(rows[0]["raw"])


def attachment(store: Store, name: str, ordinal: int) -> bytes:
    """The content of one attachment, by its number from 1."""
    found = _find(store, name)
    rows = store.rows(
        "SELECT a.content FROM pipehandler.attachment a WHERE a.message = %s::uuid AND a.ordinal = %s", [found, ordinal]
    )
    if not rows:
        count = len(store.rows(_ATTACHMENTS, [found]))
        raise NoSuchMessage(f"{name} has no attachment {ordinal}; it has {count}, see `pipehandler show {name}`")
    if rows[0]["content"] is None:
        raise NoSuchMessage(
            f"the content of attachment {ordinal} is not stored: store.attachments was false, or a rule of retention has removed"
            f" it; where the bytes are still stored, it is in `pipehandler raw {name}`"
        )
    return bytes(rows[0]["content"])


def _find(store: Store, name: str) -> str:
    """The UUID of the message that `name`, a delivery's number or a message's UUID, stands for."""
    if _is_number(name):
        rows = store.rows("SELECT message::text AS id FROM pipehandler.current_delivery WHERE id = %s", [int(name)])
    else:
        try:
            wanted = str(UUID(name))
        except ValueError:
            raise NoSuchMessage(f"{name!r} is no id; give a delivery's number or a message's UUID") from None
        rows = store.rows(
            "SELECT message::text AS id FROM pipehandler.current_delivery WHERE message = %s::uuid LIMIT 1", [wanted]
        )
    if not rows:
        raise _nothing(name)
    return str(rows[0]["id"])


def _nothing(name: str) -> NoSuchMessage:
    return NoSuchMessage(f"nothing with the id {name} is stored; `pipehandler list` shows what is")


def _is_number(name: str) -> bool:
    """Whether it can be the number of a delivery, a bigint."""
    return name.isascii() and name.isdigit() and int(name) < 1 << 63
