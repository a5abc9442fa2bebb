"""Identity: which bytes are the same message, and which deliveries are the same delivery.

    message id   a UUID (version 8, RFC 9562 5.8) from SHA-256 of the content: the bytes without what Postfix prepends for one
                 delivery. It is the same on every mail host; the recipients of one queue file share one message.
    fingerprint  SHA-256 that also recognises the message when the sending host transmitted it a second time and our own
                 Received field differs. Message-ID alone must not decide: it is the sender's to choose, so a
                 guess could make somebody else's later message vanish.

The rules are part of what is stored: a change of them needs another version tag, and stores one more copy of whatever is
delivered again across the change.
"""

import hashlib
import re
from typing import NamedTuple

_VERSION = b"pipehandler fingerprint 1\n"
_NAMED = (b"message-id", b"date", b"from", b"to", b"cc", b"subject")

# What a delivery agent of Postfix writes above the message: pipe(8) flags D, O, R and F, local(8), virtual(8).
_PREPENDED = re.compile(rb"(?:(?:From [^\n]*\n)|(?i:(?:Return-Path|X-Original-To|Delivered-To):)[^\n]*\n(?:[ \t][^\n]*\n)*)+")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")


class Identity(NamedTuple):
    """The names of one message.

    id: the message id, in the usual text form of a UUID. fingerprint and sha256 (of the content): 32 octets each.
    prepended: how many octets at the beginning of the raw message are not part of the content.
    """

    id: str
    fingerprint: bytes
    sha256: bytes
    prepended: int


def identify(raw: bytes, cut: bool = False) -> Identity:
    """The identity of `raw`, a message as it came in; `cut` when it is known to end too early.

    A cut copy has another fingerprint than the whole message, even where only empty lines are missing.
    """
    found = _PREPENDED.match(raw)
    prepended = found.end() if found else 0
    sha256 = hashlib.sha256(memoryview(raw)[prepended:]).digest()
    return Identity(_uuid(sha256), _fingerprint(raw, prepended, cut), sha256, prepended)


def _uuid(digest: bytes) -> str:
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80  # version 8
    octets[8] = octets[8] & 0x3F | 0x80  # the variant of RFC 9562
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _fingerprint(raw: bytes, start: int, cut: bool) -> bytes:
    if b"\r\n" in raw:
        raw, start = raw[start:].replace(b"\r\n", b"\n"), 0
    end = len(raw)
    while end > start and raw[end - 1] == 0x0A:
        end -= 1

    named: dict[bytes, list[bytes]] = {name: [] for name in _NAMED}
    position = start
    while found := _FIELD.match(raw, position):
        name = found[1].lower()
        if name in named:
            named[name].append(found[2].replace(b"\n", b"").strip())
        position = found.end()
    # The body is all that is not header: an empty line, or a line that can be no field, ends the header.

    digest = hashlib.sha256(_VERSION)
    if cut:
        digest.update(b"cut\n")
    if len(named[b"message-id"]) == 1:
        for name, bodies in named.items():
            for body in bodies:
                digest.update(b"%s %d:%s\n" % (name, len(body), body))
        digest.update(b"body\n")
        start = min(position, end)
    else:
        digest.update(b"bytes\n")
    digest.update(memoryview(raw)[start:end])
    return digest.digest()
