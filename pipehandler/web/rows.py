"""A row of the list and an inbox as JSON: for programs as values, for the page with the texts of its language beside them."""

from datetime import UTC, datetime
from typing import Any

from pipehandler.store.inbox_values import Inbox, InboxRow

from . import formats
from .languages import words
from .links_to import path_of
from .names import author, initial, straight


def row_json(row: InboxRow, lang: str) -> dict[str, Any]:
    """Return a row of the list. `shown` has what the page shows of it where the value alone does not do."""
    sender = author(row.sender_name, row.sender_address)
    return {
        "delivery": row.delivery,
        "cursor": row.cursor,
        "subject": row.subject,
        "sender_name": row.sender_name,
        "sender_address": row.sender_address,
        "recipient": row.recipient,
        "received_at": row.received_at.isoformat(),
        "size": row.size,
        "attachments": row.attachments,
        "state": row.state,
        "preview": row.preview,
        "url": path_of("message", lang, delivery=row.delivery),
        "shown": {
            "subject": straight(row.subject) or words(lang).gettext("(no subject)"),
            "sender": sender or words(lang).gettext("(unknown sender)"),
            "initial": initial(sender),
            "received": formats.date_time(row.received_at, lang),
            "size": formats.size(row.size, lang),
            "attachments": attachments_text(row.attachments, lang),
        },
    }


def name_of(inbox: Inbox) -> str:
    """Return by what a page names one of the visitor's inboxes: its lease, or `all`."""
    return "all" if inbox.lease is None else str(inbox.lease)


def inbox_json(inbox: Inbox) -> dict[str, Any]:
    """Return an inbox."""
    times = {
        name: getattr(inbox, name).isoformat() if getattr(inbox, name) else None
        for name in ("created_at", "expires_at", "grace_until", "life_until")
    }
    return {
        "lease": inbox.lease,
        "address": inbox.address,
        "label": inbox.label,
        **times,
        "kind": inbox.kind,
        "owner": inbox.owner,
        "state": inbox.state,
        "deliveries": inbox.deliveries,
        "octets": inbox.octets,
        "max_messages": inbox.max_messages,
        "max_octets": inbox.max_octets,
        "cursor": inbox.cursor,
        "now": datetime.now(UTC).isoformat(),
    }


def attachments_text(count: int, lang: str) -> str:
    """Return "2 attachments", "" without any."""
    if not count:
        return ""
    sentence = words(lang).ngettext("%(num)s attachment", "%(num)s attachments", count)
    return str(sentence) % {"num": formats.number(count, lang)}


def arrivals_text(count: int, lang: str) -> str:
    """Return "2 new messages"."""
    sentence = words(lang).ngettext("%(num)s new message", "%(num)s new messages", count)
    return str(sentence) % {"num": formats.number(count, lang)}
