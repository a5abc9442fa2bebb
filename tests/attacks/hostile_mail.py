"""Messages that bring a payload in everything that a sender chooses: names, subjects, headers, links, files, texts."""

import base64
import zlib
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from harness.inbox_mail import TRUSTED

GROUP = 12
"""Payloads of one message of `everywhere`: as many attachments as the page looks into."""

_TYPES = ("text/plain", "text/calendar", "message/rfc822", "text/html", "image/svg+xml", "text/csv")


def _word(text: str) -> str:
    """Text as encoded words (RFC 2047), each short enough."""
    octets, words = text.encode("utf-8", "replace"), []
    while octets:
        size = min(45, len(octets))
        while size < len(octets) and octets[size] & 0xC0 == 0x80:
            size -= 1  # not within a character
        words.append(f"=?utf-8?b?{base64.b64encode(octets[:size]).decode()}?=")
        octets = octets[size:]
    return "\n ".join(words)


def _field(text: str) -> str:
    """Text as the body of a field, as a careless sender writes it: unencoded where that is possible."""
    return text if text.isprintable() and text.isascii() and len(text) < 900 and text.strip() else _word(text)


def _quoted(text: str) -> str:
    """Text as a quoted string (RFC 5322, 3.2.4)."""
    plain = "".join(letter for letter in text if " " <= letter <= "~")
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _uri(text: str) -> str:
    return "".join(letter for letter in text if "!" <= letter <= "~" and letter not in "<>")[:300]


def short(payload: str, number: int) -> bytes:
    """A message with one payload: as its subject, its author and its text."""
    return "\n".join((
        f"From: {_word(payload)} <{number}@example.org>", f"Subject: {_word(payload)}", f"Message-ID: <{number}@short.example>",
        "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64", "",
        base64.encodebytes(payload.encode("utf-8", "replace")).decode(),
    )).encode()  # fmt: skip


def named(author: str, subject: str, *files: str) -> bytes:
    """A message with this author and subject, and with files of these names, which hold HTML."""
    parts = [f"Content-Type: text/plain\n\ntext of {len(files)} files\n"]
    parts += [
        f"Content-Type: text/html\nContent-Disposition: attachment; filename*=utf-8''{quote(name, safe='')}\n\n<script>alert(1)</script>\n"
        for name in files
    ]
    return "\n".join((
        f"From: {_word(author)} <author@example.org>", f"Subject: {_word(subject)}", f"X-Name: {author}",
        f"Message-ID: <{zlib.crc32(repr((author, subject, files)).encode())}@named.example>", "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=named", "", *(f"--named\n{part}" for part in parts), "--named--", "",
    )).encode()  # fmt: skip


def everywhere(payloads: Sequence[str], number: int, host: str) -> bytes:
    """A message with all payloads in everything that can have several values, and all of them in its subject and its author.

    host: where its links lead.
    """
    together = " ".join(payloads)
    names = ", ".join(f"{_word(each)} <{index}@example.org>" for index, each in enumerate(payloads))
    fields = [
        f"Authentication-Results: {TRUSTED}; dmarc=fail reason={_quoted(together)} header.from={_quoted(payloads[0])}",
        f"From: {_word(together)} <{_quoted(payloads[0])}@example.org>",
        f"Sender: {_word(together)} <sender@example.org>",
        f"Reply-To: {names}",
        f"To: {names}",
        "Cc: " + ", ".join(f"{_quoted(each)}@example.org" for each in payloads),
        f"Subject: {_word(together)}",
        f"Message-ID: <{number}.{_uri(payloads[0])}@everywhere.example>",
        "List-Unsubscribe: " + ",\n ".join(f"<{_uri(each)}>" for each in payloads if _uri(each)),
        f"List-ID: {_word(together)} <list.example>",
        *(f"X-Payload-{index}: {_field(each)}" for index, each in enumerate(payloads)),
        *(
            f"{name}: x"
            for each in payloads
            if (name := "".join(c for c in each if "!" <= c <= "~" and c != ":")[:200])
        ),
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="hostile"',
    ]
    html = "".join(
        f'<p><a href="https://{host}/{number}/{index}">{escape(each)}</a> <a href="{escape(each)}">{index}</a>{each}</p>'
        for index, each in enumerate(payloads)
    )
    parts = [
        'Content-Type: multipart/alternative; boundary="texts"\n\n' + "\n".join((
            _part("texts", "text/plain", "\n".join(f"{each}\nhttps://{host}/{number}/text{quote(each)[:200]}" for each in payloads)),
            _part("texts", "text/html", html), "--texts--",
        )),
        *(_attachment(each, index) for index, each in enumerate(payloads)),
    ]  # fmt: skip
    body = "\n".join(f"--hostile\n{part}" for part in parts)
    return ("\n".join(fields) + f"\n\n{body}\n--hostile--\n").encode("utf-8", "replace")


def _part(boundary: str, media_type: str, text: str) -> str:
    content = base64.encodebytes(text.encode("utf-8", "replace")).decode()
    return f"--{boundary}\nContent-Type: {media_type}; charset=utf-8\nContent-Transfer-Encoding: base64\n\n{content}"


def _attachment(payload: str, index: int) -> str:
    media_type = _TYPES[index % len(_TYPES)]
    content = {
        "message/rfc822": f"From: {_word(payload)} <a@example.org>\nSubject: {_word(payload)}\n\n{payload}\n",
        "text/calendar": f"BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:{payload}\nURL:{payload}\nEND:VEVENT\nEND:VCALENDAR\n",
    }.get(media_type, payload)
    head = [
        f"Content-Type: {media_type}; charset={_quoted(payload)[:80].rstrip(chr(92))}",
        f"Content-Disposition: attachment; filename*=utf-8''{quote(payload, safe='')}",
        f"Content-Description: {_word(payload)}",
        f"Content-ID: <{_uri(payload)}@example.org>",
        f"Content-Location: {_uri(payload)}",
    ]
    if media_type == "message/rfc822":
        return "\n".join(head) + f"\n\n{content}"
    head.append("Content-Transfer-Encoding: base64")
    return "\n".join(head) + f"\n\n{base64.encodebytes(content.encode('utf-8', 'replace')).decode()}"
