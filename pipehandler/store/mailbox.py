"""Stored mail: the queries behind `pipehandler list`, `show`, `raw` and `attachment`.

Expired mail is not visible, whether or not `pipehandler expire` has removed it already. An id is either the number of a
delivery or the UUID of a message. Every function raises StoreError if the database fails, and NoSuchMessage if nothing
has that id. Rows that cannot be read are left out and logged (store/readable.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Required, TypedDict
from uuid import UUID

from ..mail.envelope import lower_domain
from .bigint import bigint
from .connection import Store
from .like import escaped, like
from .readable import mismatch, readable_rows, tolerant_rows

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

_MESSAGE = """
SELECT m.id::text, m.received_at, m.message_id, m.in_reply_to, m.reference_ids, m.date, m.date_offset, m.subject,
       m.from_list, m.sender_list, m.reply_to_list, m.to_list, m.cc_list, m.bcc_list, m.list_id, m.text_body,
       m.html_body, m.header, m.authentication, m.size, encode(m.sha256, 'hex') AS sha256, m.state, m.error, m.defects,
       m.parser, m.text_from_html, m.preview, m.auto_submitted, m.precedence, m.list_unsubscribe,
       m.list_unsubscribe_post, m.report
  FROM pipehandler.message m
 WHERE m.id = %s::uuid
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
 WHERE a.message = %s::uuid
 ORDER BY a.ordinal
"""

_RAW = """
SELECT coalesce((SELECT d.prepended FROM pipehandler.current_delivery d WHERE d.id = %s::bigint), '') || r.raw
  FROM pipehandler.raw_message r
 WHERE r.message = %s::uuid
"""

_ATTACHMENT_COUNT = "SELECT count(*) FROM pipehandler.attachment a WHERE a.message = %s::uuid"

_CONTENT = "SELECT a.content FROM pipehandler.attachment a WHERE a.message = %s::uuid AND a.ordinal = %s"

_MESSAGE_OF_DELIVERY = "SELECT d.message::text FROM pipehandler.current_delivery d WHERE d.id = %s"

_CURRENT_MESSAGE = "SELECT d.message::text FROM pipehandler.current_delivery d WHERE d.message = %s::uuid LIMIT 1"


class NoSuchMessage(Exception):
    """Nothing that is stored has this id; the text names the id and what to do."""


class UnreadableMessage(Exception):
    """The row of this message holds what no pipehandler writes there; the text says which column, and what to do."""


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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of pipehandler.current_delivery, whose columns have comments: a message for one recipient."""

    id: int
    message: str
    recipient: str
    original_recipient: str | None
    sender: str
    queue_id: str | None
    mail_host: str
    ingress: str
    client_address: str | None
    client_hostname: str | None
    client_helo: str | None
    client_port: int | None
    client_protocol: str | None
    sasl_username: str | None
    received_at: datetime
    stored_at: datetime
    lease: int | None
    expires_at: datetime | None
    raw_until: datetime | None
    attachments_until: datetime | None
    extension: str | None
    later_original_recipients: list[str]
    later_list_ids: list[str]


@dataclass(frozen=True, slots=True)
class Attachment:
    """One row of pipehandler.attachment, without its content. size: octets of the decoded content."""

    ordinal: int
    part: str
    file_name: str | None
    content_type: str
    content_id: str | None
    disposition: str | None
    size: int
    sha256: str
    parameters: dict[str, str]
    content_location: str | None
    content_description: str | None


class Mailbox(TypedDict):
    """An address of a header field; `group` is the group that it stood in, or ""."""

    name: str
    address: str


class Defect(TypedDict):
    """Something that is wrong with a message."""

    code: str
    where: str
    detail: str


class Report(TypedDict, total=False):
    """What a report reports; parse/report.py has all of its keys."""

    type: Required[str]
    recipients: list[dict[str, str]]
    feedback_type: str
    disposition: str
    original_message_id: str


Mailboxes = list[Mailbox]
"""The addresses of a header field."""

HeaderField = Annotated[list[str], 2]
"""The name and the body of a header field."""


@dataclass(frozen=True, slots=True)
class Message:
    """One row of pipehandler.message, with its deliveries and attachments. The comments on its columns describe them.

    header: the fields in order, each a pair of name and body. defects: each with "code", "where" and "detail".
    """

    id: str
    received_at: datetime
    message_id: str | None
    in_reply_to: list[str]
    reference_ids: list[str]
    date: datetime | None
    date_offset: int | None
    subject: str | None
    from_list: Mailboxes
    sender_list: Mailboxes
    reply_to_list: Mailboxes
    to_list: Mailboxes
    cc_list: Mailboxes
    bcc_list: Mailboxes
    list_id: str | None
    text_body: str | None
    html_body: str | None
    header: list[HeaderField]
    authentication: dict[str, Any]
    size: int
    sha256: str
    state: str
    error: str | None
    defects: list[Defect]
    parser: str
    text_from_html: str | None
    preview: str | None
    auto_submitted: str | None
    precedence: str | None
    list_unsubscribe: list[str]
    list_unsubscribe_post: bool
    report: Report | None
    deliveries: Sequence[Delivery] = ()
    attachments: Sequence[Attachment] = ()


class _Content(NamedTuple):
    content: bytes | None


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
    exclusive. state: of the message, parsed or failed.
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


def message(store: Store, name: str) -> Message:
    """The message with the id `name`, its deliveries and its attachments without their content. Raises UnreadableMessage."""
    uuid = message_id(store, name)
    rows = tolerant_rows(store, _MESSAGE, [uuid])
    if not rows:  # removed since it was looked up
        raise _no_such_message(name)
    wrong = mismatch(rows[0], Message)
    if wrong:
        raise UnreadableMessage(
            f"message {uuid} cannot be read: {wrong}; `pipehandler raw {uuid}` has its bytes,"
            f" `pipehandler reparse {uuid}` replaces what was read from them"
        )
    return replace(
        Message(**rows[0]),
        deliveries=readable_rows(store, _DELIVERIES, [uuid], Delivery, "delivery", "id"),
        attachments=readable_rows(store, _ATTACHMENTS, [uuid], Attachment, "attachment", "ordinal"),
    )


def raw(store: Store, name: str) -> bytes:
    """The exact octets: for a delivery with what Postfix prepended to it, for a message without."""
    contents = store.values(_RAW, [bigint(name), message_id(store, name)], of=bytes)
    if not contents:
        raise NoSuchMessage(f"the raw bytes of {name} are not stored any more")
    return contents[0]


def attachment(store: Store, name: str, ordinal: int) -> bytes:
    """The content of one attachment; the first has the ordinal 1."""
    uuid = message_id(store, name)
    contents = store.rows(_CONTENT, [uuid, ordinal], row=_Content)
    if not contents:
        (count,) = store.values(_ATTACHMENT_COUNT, [uuid], of=int)
        raise NoSuchMessage(f"{name} has no attachment {ordinal}; it has {count}, see `pipehandler show {name}`")
    content = contents[0].content
    if content is None:
        raise NoSuchMessage(
            f"the content of attachment {ordinal} is not stored: store.attachments was false, or [[retention]] has removed it;"
            f" while the raw bytes are stored, `pipehandler raw {name}` contains it"
        )
    return bytes(content)


def message_id(store: Store, name: str) -> str:
    """The UUID of the message with the id `name`, a delivery's number or a message's UUID."""
    number = bigint(name)
    if number is not None:
        uuids = store.values(_MESSAGE_OF_DELIVERY, [number], of=str)
    else:
        try:
            uuid = str(UUID(name))
        except ValueError:
            raise NoSuchMessage(f"{name!r} is not an id: pass a delivery's number or a message's UUID") from None
        uuids = store.values(_CURRENT_MESSAGE, [uuid], of=str)
    if not uuids:
        raise _no_such_message(name)
    return uuids[0]


def _no_such_message(name: str) -> NoSuchMessage:
    return NoSuchMessage(f"nothing with the id {name} is stored; `pipehandler list` shows what is")
