"""The rows of stored mail as values: a message, its deliveries, its attachments. The columns of the tables have comments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Required, TypedDict


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
