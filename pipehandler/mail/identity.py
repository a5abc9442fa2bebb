"""The identity of a message (are these the same bytes?) and of a delivery (was this delivered before?).

message id   a UUID (version 8, RFC 9562 5.8) from the SHA-256 of the content: the bytes without what Postfix prepends
             for one delivery. It is the same on every mail host; the recipients of one queue file share one message.
fingerprint  a SHA-256 that also recognises a message that the sending host transmits a second time, with a different
             Received field of ours (fingerprint.py). Message-ID alone must not decide: the sender chooses it, so by
             guessing one, an attacker could make a later message of another sender disappear.
"""

import hashlib
import re
from typing import NamedTuple

from . import fingerprint_1
from .fingerprint import fingerprint

# What a Postfix delivery agent writes above the message (pipe(8) flags F, D, O and R, local(8), virtual(8)): perhaps an
# mbox line, then fields. Their end is searched for, rather than matched field by field: no repetition in these patterns
# can make the regular expression engine allocate more than the message, however many fields it has.
_MBOX_LINE = re.compile(rb"From (?![ \t]*:)[^\n]*\n")
_PREPENDED_END = re.compile(rb"^(?!(?:Return-Path|X-Original-To|Delivered-To):|[ \t])", re.IGNORECASE | re.MULTILINE)


class Identity(NamedTuple):
    """The identifiers of one message.

    id: the message id, as the usual text of a UUID. fingerprint: 32 octets. former_fingerprint: the same by the rules
    of the previous release. prepended: the number of octets at the start of the raw message that are not part of the
    content.
    """

    id: str
    fingerprint: bytes
    former_fingerprint: bytes
    prepended: int


def identify(raw: bytes) -> Identity:
    """Return the identity of `raw`, a message as received."""
    start = prepended(raw)
    name = _uuid(hashlib.sha256(memoryview(raw)[start:]).digest())
    return Identity(name, fingerprint(raw, start), fingerprint_1.fingerprint(raw, start), start)


def prepended(raw: bytes) -> int:
    """Count the octets at the beginning of `raw` that a delivery agent wrote above the message."""
    mbox_line = _MBOX_LINE.match(raw)
    start = mbox_line.end() if mbox_line else 0
    if raw[start : start + 1] in (b" ", b"\t"):
        return start
    found = _PREPENDED_END.search(raw, start)
    return found.start() if found else _last_field(raw, start)


def _last_field(raw: bytes, start: int) -> int:
    """Return the start of the last field. If it has no line end, it is the rest of a truncated message."""
    end = len(raw)
    while (end := raw.rfind(b"\n", start, end)) >= 0:
        if raw[end + 1 : end + 2] not in (b" ", b"\t"):
            return end + 1
    return start


def _uuid(digest: bytes) -> str:
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80  # version 8
    octets[8] = octets[8] & 0x3F | 0x80  # the variant of RFC 9562
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
