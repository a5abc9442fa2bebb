"""Python's email with policy.default: reads file names from stdin, prints a line of JSON for each (see second_opinion.py)."""

import email
import email.message
import email.policy
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any


def attempt(read: Callable[[], Any]) -> Any:
    """A value, or the exception that it ended with."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 # what it fails at is a finding, not a fault of this program
        return f"!{type(error).__name__}"


def addresses(message: email.message.EmailMessage, name: str) -> list[list[str]]:
    """The mailboxes of all fields with that name."""
    return [[one.display_name, one.addr_spec] for field in message.get_all(name, []) for one in field.addresses]


def date(message: email.message.EmailMessage) -> str | None:
    """The date in UTC."""
    field = message["date"]
    if field is None or field.datetime is None:
        return None
    naive = field.datetime.tzinfo is None
    return str((field.datetime.replace(tzinfo=UTC) if naive else field.datetime.astimezone(UTC)).isoformat())


def contents(message: email.message.EmailMessage) -> dict[str, Any]:
    """The bodies and the attachments: a leaf of text is a body if it is not an attachment, and has no name or begins
    the message."""
    found: dict[str, Any] = {"text": [], "html": [], "attachments": []}

    def visit(part: email.message.MIMEPart, first: bool, parent: str) -> None:
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            for number, inner in enumerate(part.iter_parts()):
                visit(inner, first and number == 0, part.get_content_subtype())
            return
        name = part.get_filename()
        kind = part.get_content_type()
        named = name is not None and not first and parent != "alternative"
        if kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment" and not named:
            found[kind.partition("/")[2].replace("plain", "text")].append(attempt(lambda: part.get_content()))
            return
        content = None
        if kind != "message/rfc822" and not part.is_multipart():
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else None
        found["attachments"].append([name, *measured(content)])

    visit(message, True, "")
    return {
        "text": "\n".join(found["text"]) or None,
        "html": "\n".join(found["html"]) or None,
        "attachments": found["attachments"],
    }


def measured(content: bytes | None) -> tuple[int | None, str | None]:
    """Size and SHA-256 with LF and without line ends at the end; None for content that it does not keep as octets."""
    if content is None:
        return None, None
    octets = content.replace(b"\r\n", b"\n").rstrip(b"\n")
    return len(octets), hashlib.sha256(octets).hexdigest()


def opinion(path: str) -> dict[str, Any]:
    """The values that it reads in one file."""
    message = email.message_from_bytes(Path(path).read_bytes(), policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    bodies = attempt(lambda: contents(message))
    if isinstance(bodies, str):
        bodies = dict.fromkeys(("text", "html", "attachments"), bodies)
    return {
        "subject": attempt(lambda: message["subject"]),
        "from": attempt(lambda: addresses(message, "from")),
        "to": attempt(lambda: addresses(message, "to")),
        "cc": attempt(lambda: addresses(message, "cc")),
        "date": attempt(lambda: date(message)),
        "message_id": attempt(lambda: message["message-id"]),
        **bodies,
    }


for line in sys.stdin:
    value = opinion(line.rstrip("\n"))
    print(json.dumps(value, default=str))  # noqa: T201 # its output is its purpose
