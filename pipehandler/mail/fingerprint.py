"""The fingerprint: which deliveries are the same delivery. docs/design/identity.md explains the rules.

SHA-256 over a version tag, and

    with exactly one Message-ID   the fields that decide what a reader sees (header_fields.DECIDING), and the body
    otherwise                     all octets, without what our own Postfix adds when it picks a message up again

Fields are compared unfolded, and in order among those with the same name. Content-Type and Content-Disposition are
compared by their meaning, and Content-Transfer-Encoding by its one word. Line ends count as LF; empty lines at the end
are ignored.
"""

import hashlib
import re

from . import header_fields, parameters

VERSION = 2
"""The version of the rules. Fingerprints are stored, so any change of the rules needs a new version."""

_TAG = b"pipehandler fingerprint 2\n"
_BLOCK = 65_536  # octets
_LONGEST_PARSED = 8_192  # octets; a longer field body is compared verbatim
_END_OF_FIELD = re.compile(rb"\n(?![ \t])")
# The field that pickup(8) writes above a message, for example after postsuper -r.
_PICKED_UP = re.compile(rb"Received: by ([!-~]{1,255}) \(Postfix, from userid \d{1,20}\)\r?\n\tid [^\n]{1,200}\n")
_RECEIVED = re.compile(rb"Received:")


def fingerprint(raw: bytes, start: int) -> bytes:
    """Return the fingerprint of the content of `raw`, which begins at `start`: 32 octets."""
    digests: dict[bytes, hashlib._Hash] = {}
    names = 0
    header = header_fields.Header(raw, header_fields.top(raw, start))
    for name, begin, end in header:
        name = name.lower()
        if name in header_fields.DECIDING:
            body = header_fields.unfolded(raw[begin:end])
            if name == b"message-id":
                names += 1 if body.strip(b"<> \t") else 2  # an empty one identifies nothing
            if name in digests:
                digests[name].update(_compared(name, body))
            else:
                digests[name] = hashlib.sha256(_compared(name, body))
    digest = hashlib.sha256(_TAG)
    if names == 1:
        for name in sorted(digests):
            digest.update(b"%s %s\n" % (name, digests[name].digest()))
        digest.update(b"body\n")
        start = header.end
    else:
        digest.update(b"bytes\n")
        start = _below_picked_up(raw, start)
    if raw.find(b"\r\n", start) >= 0:
        raw, start = raw[start:].replace(b"\r\n", b"\n"), 0
    digest.update(memoryview(raw)[start : end_of_text(raw, start)])
    return digest.digest()


def end_of_text(raw: bytes, start: int) -> int:
    """Return the end of `raw` without its trailing line feeds, at least `start`.

    Works in blocks, because there may be millions of them.
    """
    end = len(raw)
    while end > start:
        begin = max(start, end - _BLOCK)
        if kept := len(raw[begin:end].rstrip(b"\n")):
            return begin + kept
        end = begin
    return start


def _compared(name: bytes, body: bytes) -> bytes:
    """Return the form of a field body that is compared.

    It differs for any two bodies that the parser may read differently.
    """
    if name in (b"content-type", b"content-disposition") and len(body) <= _LONGEST_PARSED:
        read = parameters.read(body)
        if read.complete:
            return _joined([read.value.encode(), *map(_parameter, sorted(read.sections.items()))])
    if name == b"content-transfer-encoding":
        body = parameters.token(body)
    return _joined([body])


def _parameter(parameter: tuple[str, list[parameters.Section]]) -> bytes:
    name, sections = parameter
    return _joined([name.encode(), *(b"%d %d %s" % section for section in sections)])


def _joined(octets: list[bytes]) -> bytes:
    return b"%d\n" % len(octets) + b"".join(b"%d:%s\n" % (len(each), each) for each in octets)


def _below_picked_up(raw: bytes, start: int) -> int:
    """Return where the content begins, below the Received fields that our own Postfix wrote when it picked it up again.

    Such a field is skipped only above another one of the same host: the first one of a local submission is part of the
    message. Without it, a cron job's identical daily reports would count as one message.
    """
    while found := _PICKED_UP.match(raw, start):
        start_of_next = found.end()
        if not _RECEIVED.match(raw, start_of_next):
            break
        end = _END_OF_FIELD.search(raw, start_of_next)
        if b"by %s (" % found[1] not in raw[start_of_next : end.start() if end else len(raw)]:
            break
        start = start_of_next
    return start
