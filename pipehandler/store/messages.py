"""One stored message: the queries behind `pipehandler show`, `raw` and `attachment`.

Expired mail is not visible, whether or not `pipehandler expire` has removed it already. An id is as in ids.py. Every
function raises StoreError if the database fails, and NoSuchMessage if nothing has that id. Deliveries and attachments that
cannot be read are left out and logged (store/readable.py).
"""

from dataclasses import replace
from typing import NamedTuple

from .bigint import bigint
from .connection import Store
from .ids import NoSuchMessage, days, message_id, no_such_message
from .readable import mismatch, readable_rows, tolerant_rows
from .rows import Attachment, Delivery, Message

_MESSAGE = """
SELECT m.day, m.id::text, m.received_at, m.message_id, m.in_reply_to, m.reference_ids, m.date, m.date_offset, m.subject,
       m.from_list, m.sender_list, m.reply_to_list, m.to_list, m.cc_list, m.bcc_list, m.list_id, m.text_body,
       m.html_body, m.header, m.authentication, m.size, encode(m.sha256, 'hex') AS sha256, m.state, m.error, m.defects,
       m.parser, m.text_from_html, m.preview, m.auto_submitted, m.precedence, m.list_unsubscribe,
       m.list_unsubscribe_post, m.report
  FROM pipehandler.message m
 WHERE m.day = ANY (%s::date[]) AND m.id = %s::uuid
 ORDER BY m.day DESC
 LIMIT 1
"""

_DELIVERIES = """
SELECT d.id, d.message::text, d.recipient, d.original_recipient, d.sender, d.queue_id, d.mail_host, d.ingress,
       host(d.client_address) AS client_address, d.client_hostname, d.client_helo, d.client_port, d.client_protocol,
       d.sasl_username, d.received_at, d.stored_at, d.lease, d.expires_at, d.raw_until, d.attachments_until, d.extension,
       d.later_original_recipients, d.later_list_ids
  FROM pipehandler.current_delivery d
 WHERE d.message = %s::uuid
 ORDER BY d.id
"""

_ATTACHMENTS = """
SELECT a.ordinal, a.part, a.file_name, a.content_type, a.content_id, a.disposition, a.size,
       encode(a.sha256, 'hex') AS sha256, a.parameters, a.content_location, a.content_description
  FROM pipehandler.attachment a
 WHERE a.day = %s::date AND a.message = %s::uuid
 ORDER BY a.ordinal
"""

_RAW = """
SELECT coalesce((SELECT d.prepended FROM pipehandler.current_delivery d WHERE d.id = %s::bigint), '') || r.raw
  FROM pipehandler.raw_message r
 WHERE r.day = ANY (%s::date[]) AND r.message = %s::uuid
 LIMIT 1
"""

_ATTACHMENT_COUNT = """
SELECT count(DISTINCT a.ordinal)
  FROM pipehandler.attachment a
 WHERE a.day = ANY (%s::date[]) AND a.message = %s::uuid
"""

_CONTENT = """
SELECT a.content
  FROM pipehandler.attachment a
 WHERE a.day = ANY (%s::date[]) AND a.message = %s::uuid AND a.ordinal = %s
 ORDER BY a.content IS NULL
 LIMIT 1
"""


class UnreadableMessage(Exception):
    """The row of this message holds what no pipehandler writes there; the text says which column, and what to do."""


class _Content(NamedTuple):
    content: bytes | None


def message(store: Store, name: str) -> Message:
    """The message with the id `name`, its deliveries and its attachments without their content. Raises UnreadableMessage."""
    uuid = message_id(store, name)
    rows = tolerant_rows(store, _MESSAGE, [days(store, uuid), uuid])
    if not rows:  # removed since it was looked up
        raise no_such_message(name)
    day = rows[0].pop("day")
    wrong = mismatch(rows[0], Message)
    if wrong:
        raise UnreadableMessage(
            f"message {uuid} cannot be read: {wrong}; `pipehandler raw {uuid}` has its bytes,"
            f" `pipehandler reparse {uuid}` replaces what was read from them"
        )
    return replace(
        Message(**rows[0]),
        deliveries=readable_rows(store, _DELIVERIES, [uuid], Delivery, "delivery", "id"),
        attachments=readable_rows(store, _ATTACHMENTS, [day, uuid], Attachment, "attachment", "ordinal"),
    )


def raw(store: Store, name: str) -> bytes:
    """The exact octets: for a delivery with what Postfix prepended to it, for a message without."""
    uuid = message_id(store, name)
    contents = store.values(_RAW, [bigint(name), days(store, uuid), uuid], of=bytes)
    if not contents:
        raise NoSuchMessage(f"the raw bytes of {name} are not stored any more")
    return contents[0]


def attachment(store: Store, name: str, ordinal: int) -> bytes:
    """The content of one attachment; the first has the ordinal 1."""
    uuid = message_id(store, name)
    of_message = [days(store, uuid), uuid]
    contents = store.rows(_CONTENT, [*of_message, ordinal], row=_Content)
    if not contents:
        (count,) = store.values(_ATTACHMENT_COUNT, of_message, of=int)
        raise NoSuchMessage(f"{name} has no attachment {ordinal}; it has {count}, see `pipehandler show {name}`")
    content = contents[0].content
    if content is None:
        raise NoSuchMessage(
            f"the content of attachment {ordinal} is not stored: store.attachments was false, or [[retention]] has removed it;"
            f" while the raw bytes are stored, `pipehandler raw {name}` contains it"
        )
    return bytes(content)
