"""GMime 3, for a Python with PyGObject: reads file names from stdin, prints a line of JSON for each (see second_opinion.py)."""

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import gi  # type: ignore[import-untyped, import-not-found, unused-ignore] # Debian's python3-gi

gi.require_version("GMime", "3.0")
from gi.repository import GLib, GMime  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: E402


def addresses(found: Any) -> list[list[str]]:
    """The mailboxes of a list, those in groups included."""
    listed: list[list[str]] = []
    for number in range(found.length() if found else 0):
        one = found.get_address(number)
        if isinstance(one, GMime.InternetAddressGroup):
            listed += addresses(one.get_members())
        else:
            listed.append([one.get_name() or "", one.get_addr() or ""])
    return listed


def date(message: Any) -> str | None:
    """The date in UTC."""
    found = message.get_date()
    return str(found.to_utc().format("%Y-%m-%dT%H:%M:%S+00:00")) if found else None


def content(part: Any) -> bytes:
    """The octets of a leaf, its transfer encoding undone."""
    wrapper = part.get_content()
    memory = GMime.StreamMem.new()
    if wrapper is not None:
        wrapper.write_to_stream(memory)
    return bytes(memory.get_byte_array() or b"")


def text(part: Any) -> str:
    """The text of a leaf; where GMime returns octets that are not in its charset, they are U+FFFD."""
    try:
        return str(part.get_text() or "")
    except UnicodeDecodeError:
        return content(part).decode("utf-8", "replace")


def attempt(read: Callable[[], Any]) -> Any:
    """A value, or the exception that it ended with."""
    try:
        return read()
    except (GLib.Error, UnicodeDecodeError) as error:
        return f"!{type(error).__name__}"


def file_name(message_part: Any) -> str | None:
    """The name of an attached message."""
    name = message_part.get_content_disposition_parameter("filename") or message_part.get_content_type_parameter("name")
    return str(name) if name else None


def contents(message: Any) -> dict[str, Any]:
    """The bodies and the attachments: a leaf of text is a body if it is not an attachment, and has no name or begins
    the message."""
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attachments: list[list[Any]] = []

    def visit(part: Any, first: bool, parent: str) -> None:
        if isinstance(part, GMime.Multipart):
            for number in range(part.get_count()):
                visit(part.get_part(number), first and number == 0, part.get_content_type().get_media_subtype().lower())
            return
        kind = part.get_content_type().get_mime_type().lower()
        disposition = (part.get_disposition() or "").lower()
        name = part.get_filename() if isinstance(part, GMime.Part) else file_name(part)
        named = name is not None and not first and parent != "alternative"
        if kind in texts and isinstance(part, GMime.TextPart) and disposition != "attachment" and not named:
            texts[kind].append(text(part))
        elif isinstance(part, GMime.Part):
            octets = content(part).replace(b"\r\n", b"\n").rstrip(b"\n")
            attachments.append([name, len(octets), hashlib.sha256(octets).hexdigest()])
        else:
            attachments.append([name, None, None])

    if message.get_mime_part() is not None:
        visit(message.get_mime_part(), True, "")
    return {
        "text": "\n".join(texts["text/plain"]) or None,
        "html": "\n".join(texts["text/html"]) or None,
        "attachments": attachments,
    }


def opinion(path: str) -> dict[str, Any]:
    """The values that it reads in one file."""
    stream = GMime.StreamFs.open(path, 0, 0)
    message = GMime.Parser.new_with_stream(stream).construct_message(None)
    if message is None:
        return {}
    bodies = attempt(lambda: contents(message))
    if isinstance(bodies, str):
        bodies = dict.fromkeys(("text", "html", "attachments"), bodies)
    return {
        "subject": attempt(message.get_subject),
        "from": attempt(lambda: addresses(message.get_addresses(GMime.AddressType.FROM))),
        "to": attempt(lambda: addresses(message.get_addresses(GMime.AddressType.TO))),
        "cc": attempt(lambda: addresses(message.get_addresses(GMime.AddressType.CC))),
        "date": attempt(lambda: date(message)),
        "message_id": attempt(message.get_message_id),
        **bodies,
    }


GMime.init()
for line in sys.stdin:
    print(json.dumps(opinion(line.rstrip("\n"))))  # noqa: T201 # its output is its purpose
