"""A message as JSON, for programs."""

import dataclasses
from datetime import datetime
from typing import Any

from . import codes
from .headers import safe_file_name
from .links_to import path_of
from .mail_view import MailView


def message_json(view: MailView, lang: str) -> dict[str, Any]:
    """Return a message with its links, and the code or the confirmation link that was found in it."""
    columns: dict[str, Any] = dataclasses.asdict(view.message)
    delivery = view.message.delivery
    for each in columns["attachments"]:
        each["url"] = path_of("attachment", lang, delivery=delivery, ordinal=each["ordinal"])
        # The name is the sender's; this one is safe to show, and to save under.
        each["safe_file_name"] = safe_file_name(each["file_name"] or f"attachment-{each['ordinal']}")
        each["inline"] = each["ordinal"] in view.inline
    return {name: _plain(value) for name, value in columns.items()} | {
        "text": view.text,
        "html": view.safe.blocked if view.safe else None,
        "remote_images": view.safe.images if view.safe else 0,
        "html_is_too_costly": view.costly,
        "links": [dataclasses.asdict(link) for link in view.links],
        "code": view.found.code if isinstance(view.found, codes.OneTimeCode) else None,
        "confirmation_link": view.found.link.url if isinstance(view.found, codes.ConfirmationLink) else None,
        "eml": path_of("eml", lang, delivery=delivery),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
