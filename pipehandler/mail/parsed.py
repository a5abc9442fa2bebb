"""The decoded view of a message as data: what the parser returns and the store writes.

The names are those of RFC 5322, RFC 2045 and of the columns in sql/. Nothing here parses, reads or writes.
All text is storable: it contains neither NUL nor a lone surrogate (see charset.storable).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple


class Defect(NamedTuple):
    """Something in the message that was guessed, replaced or left out on the way from bytes to text.

    `code` is a key of DEFECTS in parse/defect.py. `where` is a field name, an IMAP part number (RFC 3501 6.4.5: "1.2"),
    or "" for the message as a whole. `detail` is for people.
    """

    code: str
    where: str = ""
    detail: str = ""


class Address(NamedTuple):
    """One mailbox (RFC 5322 3.4).

    `address` is the addr-spec as the sender wrote it, perhaps without an @. `name` is the decoded display name or "".
    `group` is the display name of its group or "".
    """

    name: str
    address: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One part that a person would save: a file, an image, a calendar, an attached message, a signature.

    `content` is the part without its transfer encoding; for message/rfc822 the exact bytes of the attached message.
    `content_type` is the media type in lower case, without parameters. `content_location` is the URI by which HTML may
    refer to it (RFC 2557 4.2). `part` is its IMAP part number (RFC 3501 6.4.5); a file extracted from a signed message,
    a winmail.dat or uuencoded text has a number below that of its container. `parameters` are those of the media type,
    decoded, with names in lower case.
    """

    part: str
    content_type: str
    content: bytes
    file_name: str | None = None
    content_id: str | None = None
    disposition: str | None = None
    content_location: str | None = None
    content_description: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ParsedMessage:
    """The decoded view of one message. Anything absent is None or empty.

    `date` always has a zone: the sender's (RFC 5322 3.3), or UTC if that is missing ("-0000") or 24 hours or more.
    `date_offset` is the sender's zone, in minutes east of UTC from -5999 to 5999, None if missing.
    `header` has every field in order: (name, body), the body unfolded, encoded-words not decoded.
    `message_id`, `in_reply_to` and `references` are without their angle brackets.
    `text_from_html` is the text of `html` if there is no `text`; `preview` is the first words of either.
    `auto_submitted` and `precedence` are words in lower case (RFC 3834), `list_unsubscribe` is a list of URIs
    (RFC 2369), and `list_unsubscribe_post` is whether a POST to one of them unsubscribes (RFC 8058).
    `report` is the result of report.read.
    """

    message_id: str | None = None
    in_reply_to: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    date: datetime | None = None
    date_offset: int | None = None
    subject: str | None = None
    from_: list[Address] = field(default_factory=list)
    sender: list[Address] = field(default_factory=list)
    reply_to: list[Address] = field(default_factory=list)
    to: list[Address] = field(default_factory=list)
    cc: list[Address] = field(default_factory=list)
    bcc: list[Address] = field(default_factory=list)
    list_id: str | None = None
    list_unsubscribe: list[str] = field(default_factory=list)
    list_unsubscribe_post: bool = False
    auto_submitted: str | None = None
    precedence: str | None = None
    text: str | None = None
    html: str | None = None
    text_from_html: str | None = None
    preview: str | None = None
    header: list[tuple[str, str]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    authentication: dict[str, str] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    report: dict[str, Any] | None = None
    error: str | None = None
