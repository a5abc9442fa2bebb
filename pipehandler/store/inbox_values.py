"""What the functions of the inbox page return, as values: an inbox, a line of its list, a message."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .rows import Defect, HeaderField, Mailboxes, Report


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a key opens.

    lease, address: None for a viewer's key to all mail. expires_at: when it ends; None: never. grace_until: until when it
    can be brought back with its mail. life_until: how long its owner can make it last; None for others. kind: owner, shared
    or viewer. deliveries: how many it has, at most 10,000; octets: of their messages; None for all mail. max_messages,
    max_octets: what it takes; None: everything. cursor: the position of now in the stream. state: active, or expired.
    """

    lease: int | None
    address: str | None
    label: str | None
    created_at: datetime
    expires_at: datetime | None
    grace_until: datetime | None
    life_until: datetime | None
    kind: str
    deliveries: int | None
    octets: int | None
    max_messages: int | None
    max_octets: int | None
    cursor: str
    state: str

    @property
    def owner(self) -> bool:
        """Whether the key may extend, end, empty and share it."""
        return self.kind == "owner"

    @property
    def of_all_shards(self) -> bool:
        """Whether its mail is on every shard, where there are several: it is a catch-all, or all mail."""
        return self.address is None or self.address.startswith("@")


@dataclass(frozen=True, slots=True)
class InboxDomain:
    """A domain whose addresses visitors get. max_ttl: of a new inbox, or one extension. max_life: of an inbox with all of
    them. grace: how long it can be brought back."""

    domain: str
    max_ttl: timedelta
    max_life: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A line of the list. Its texts are shortened; sender_address is the envelope sender where From has none. cursor: the
    position after it. state: parsed, or failed: only its bytes are stored."""

    delivery: int
    cursor: str
    subject: str | None
    sender_name: str | None
    sender_address: str
    received_at: datetime
    size: int
    attachments: int
    state: str
    preview: str | None
    recipient: str


@dataclass(frozen=True, slots=True)
class InboxPage:
    """A page of the list, the newest first. older: `before` of the next page; None: there is none. newest: the cursor at
    which the stream goes on after this page. partial: mail is missing, because a shard that may have some is away."""

    rows: tuple[InboxRow, ...]
    older: str | None
    newest: str
    partial: bool = False


@dataclass(frozen=True, slots=True)
class InboxAttachment:
    """An attachment. part: as IMAP counts. size: octets. kept: whether its content is stored."""

    ordinal: int
    part: str
    file_name: str | None
    content_type: str
    content_id: str | None
    disposition: str | None
    size: int
    kept: bool
    parameters: dict[str, str]
    content_location: str | None
    content_description: str | None


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One delivery with its message; the columns of delivery and message have comments (docs/schema.md).

    sender: of the envelope. text_body, text_from_html, html_body: at most 2 MiB each; is_cut: there is more. header: pairs
    of name and body. has_raw: whether its bytes are stored. previous, next: the deliveries above and below it in the list.
    """

    delivery: int
    cursor: str
    message: str
    recipient: str
    extension: str | None
    sender: str
    subject: str | None
    from_list: Mailboxes
    sender_list: Mailboxes
    reply_to_list: Mailboxes
    to_list: Mailboxes
    cc_list: Mailboxes
    date: datetime | None
    date_offset: int | None
    received_at: datetime
    size: int
    state: str
    error: str | None
    preview: str | None
    text_body: str | None
    text_from_html: str | None
    html_body: str | None
    is_cut: bool
    header: list[HeaderField]
    message_id: str | None
    list_id: str | None
    list_unsubscribe: list[str]
    list_unsubscribe_post: bool
    authentication: dict[str, Any]
    defects: list[Defect]
    report: Report | None
    is_automatic: bool
    has_raw: bool
    attachments: tuple[InboxAttachment, ...]
    previous: int | None
    next: int | None
