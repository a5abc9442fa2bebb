"""Identity: which bytes are the same message, and which deliveries are the same delivery.

    message id   a UUID (version 8, RFC 9562 5.8) from SHA-256 of the content: the bytes without what Postfix prepends for one
                 delivery. It is the same on every mail host; the recipients of one queue file share one message.
    fingerprint  SHA-256 that also recognises the message when the sending host transmitted it a second time and our own
                 Received field differs. Message-ID alone must not decide: it is the sender's to choose, so a
                 guess could make a later message of another sender disappear.

The rules are part of what is stored: changing them needs another version tag, and stores one more copy of a message that is
delivered again across the change.
"""

import hashlib
import re
from typing import NamedTuple

_VERSION = b"pipehandler fingerprint 1\n"
_NAMED = (b"message-id", b"date", b"from", b"to", b"cc", b"subject")

# What a delivery agent of Postfix writes above the message (pipe(8) flags F, D, O and R, local(8), virtual(8)): perhaps
# an mbox line, then fields. Where they end is searched, not matched field by field: no repetition in these patterns can
# make the expression engine allocate more than the message, however many fields it has.
_MBOX_LINE = re.compile(rb"From (?![ \t]*:)[^\n]*\n")
_PREPENDED_END = re.compile(rb"^(?!(?:Return-Path|X-Original-To|Delivered-To):|[ \t])", re.IGNORECASE | re.MULTILINE)

# RFC 5322 2.2: the header ends before the first line that is neither a field nor goes on with one.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_HEADER_END = re.compile(rb"\n(?![!-9;-~]+[ \t]*:|[ \t])")
_NAMED_FIELD = re.compile(rb"^(%s)[ \t]*:" % b"|".join(_NAMED), re.IGNORECASE | re.MULTILINE)
_FIELD_END = re.compile(rb"\n(?![ \t])")


class Identity(NamedTuple):
    """The identifiers of one message.

    id: the message id, in the usual text form of a UUID. fingerprint: 32 octets.
    prepended: how many octets at the beginning of the raw message are not part of the content.
    """

    id: str
    fingerprint: bytes
    prepended: int


def identify(raw: bytes) -> Identity:
    """Return the identity of `raw`, a message as it came in."""
    start = prepended(raw)
    return Identity(_uuid(hashlib.sha256(memoryview(raw)[start:]).digest()), _fingerprint(raw, start), start)


def prepended(raw: bytes) -> int:
    """Count the octets at the beginning of `raw` that a delivery agent wrote above the message."""
    mbox_line = _MBOX_LINE.match(raw)
    start = mbox_line.end() if mbox_line else 0
    if raw[start : start + 1] in (b" ", b"\t"):
        return start
    found = _PREPENDED_END.search(raw, start)
    return found.start() if found else len(raw)


def _uuid(digest: bytes) -> str:
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80  # version 8
    octets[8] = octets[8] & 0x3F | 0x80  # the variant of RFC 9562
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _fingerprint(raw: bytes, start: int) -> bytes:
    if b"\r\n" in raw:
        raw, start = raw[start:].replace(b"\r\n", b"\n"), 0
    end = len(raw)
    while end > start and raw[end - 1] == 0x0A:
        end -= 1

    header_end = start
    if _FIELD.match(raw, start):
        found = _HEADER_END.search(raw, start)
        header_end = found.start() + 1 if found else len(raw)
    named: dict[bytes, list[bytes]] = {name: [] for name in _NAMED}
    for field in _NAMED_FIELD.finditer(raw, start, header_end):
        field_end = _FIELD_END.search(raw, field.end(), header_end)
        body = raw[field.end() : field_end.start() if field_end else header_end]
        named[field[1].lower()].append(body.replace(b"\n", b"").strip(b" \t"))

    digest = hashlib.sha256(_VERSION)
    # A Message-ID that is empty names nothing.
    if len(named[b"message-id"]) == 1 and named[b"message-id"][0].strip(b"<> \t"):
        for name, bodies in named.items():
            for body in bodies:
                digest.update(b"%s %d:%s\n" % (name, len(body), body))
        digest.update(b"body\n")
        start = min(header_end, end)
    else:
        digest.update(b"bytes\n")
    digest.update(memoryview(raw)[start:end])
    return digest.digest()
