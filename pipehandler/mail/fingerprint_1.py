"""Version 1 of the fingerprint, used by releases before 0.2: kept for one release, to recognise what they stored.

It reads a header by its own rules, and does not cover how the body is decoded. So it is compared only with deliveries
that have no newer one (pipehandler.delivery.fingerprint_version). Its rules never change.
"""

import hashlib
import re

from .fingerprint import end_of_text

_VERSION = b"pipehandler fingerprint 1\n"
_NAMED = (b"message-id", b"date", b"from", b"to", b"cc", b"subject")

# RFC 5322 2.2: the header ends before the first line that neither begins nor continues a field.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_HEADER_END = re.compile(rb"\n(?![!-9;-~]+[ \t]*:|[ \t])")
_NAMED_FIELD = re.compile(rb"^(%s)[ \t]*:" % b"|".join(_NAMED), re.IGNORECASE | re.MULTILINE)
_FIELD_END = re.compile(rb"\n(?![ \t])")


def fingerprint(raw: bytes, start: int) -> bytes:
    """Return the fingerprint of the content of `raw`, which begins at `start`."""
    if b"\r\n" in raw:
        raw, start = raw[start:].replace(b"\r\n", b"\n"), 0
    end = end_of_text(raw, start)

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
    # An empty Message-ID identifies nothing.
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
