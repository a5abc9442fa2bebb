"""Undoing a Content-Transfer-Encoding (RFC 2045 6): a part's exact octets, with one copy and no more than needed."""

import binascii
import re
from collections.abc import Callable
from contextlib import suppress

Note = Callable[[str, str], None]  # a code of defect.DEFECTS, and its detail

_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_AFTER_PADDING = re.compile(rb"[^=\s]")
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|\n|\r\n|\Z)")
_SOFT_BREAK_WITH_BLANKS = re.compile(rb"=[ \t]+(?=\r?\n)")
_LONE_CR = re.compile(rb"=\r(?!\n)")
_UU_BEGIN = re.compile(rb"^begin [^\n]*\n", re.MULTILINE)
_UU_LINE = re.compile(rb"[^\r\n]+")
_UU_BROKEN = 100  # lines, after which the rest is not worth the time
_CHUNK = 1 << 20

_IDENTITY = frozenset({"", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits", "none"})
_UU = frozenset({"x-uuencode", "uuencode", "x-uue", "uue"})


def decode(raw: bytes, start: int, end: int, encoding: str, note: Note) -> bytes:
    """The content of raw[start:end] in the transfer encoding `encoding` (lower case, "" for none).

    Never raises: what is broken is decoded as far as it goes, and `note` is told; octets in an unknown encoding are
    returned as they are (RFC 2045 6.4).
    """
    view = memoryview(raw)[start:end]
    if encoding in ("base64", "b"):
        return _base64(raw, start, end, note)
    if encoding in ("quoted-printable", "q", "quoted_printable"):
        return _quoted_printable(view, note)
    if encoding in _UU:
        return _uuencode(view, note)
    if encoding not in _IDENTITY:
        note("transfer-encoding-unknown", encoding)
    return bytes(view)


def _base64(raw: bytes, start: int, end: int, note: Note) -> bytes:
    # RFC 2045 6.8: "=" is the end. What comes after it is no part of the content.
    stop = raw.find(b"=", start, end)
    after = _AFTER_PADDING.search(raw, stop, end) if stop >= 0 else None
    stop = end if stop < 0 else stop
    letters = stop - start - _blanks(raw, start, stop)
    padding = -letters % 4
    content = None
    if raw[stop : min(stop + padding, end)] == b"=" * padding:
        with suppress(binascii.Error):  # one letter too many, or strange octets
            content = binascii.a2b_base64(memoryview(raw)[start : stop + padding])
    if content is None or len(content) != letters * 3 // 4:
        content, rest, strange = _base64_in_chunks(memoryview(raw)[start:stop])
        if strange:
            note("base64-broken", f"{strange} strange octets")
        elif rest:
            note("base64-broken", "one letter too many" if rest == 1 else "padding is missing")
    if after is not None:
        note("base64-after-padding", f"{end - after.start()} octets")
    return content


def _blanks(octets: bytes, start: int, end: int) -> int:
    return sum(octets.count(blank, start, end) for blank in (b"\n", b"\r", b" ", b"\t"))


def _base64_in_chunks(view: memoryview) -> tuple[bytes, int, int]:
    """Content, letters beyond the last four, and the number of octets that are neither base64 nor blank."""
    pieces, rest, strange = [], b"", 0
    for at in range(0, len(view), _CHUNK):
        chunk = bytes(view[at : at + _CHUNK])
        letters = chunk.translate(None, _NOT_BASE64)
        strange += len(chunk) - len(letters) - _blanks(chunk, 0, len(chunk))
        letters = rest + letters
        whole = len(letters) // 4 * 4
        pieces.append(binascii.a2b_base64(letters[:whole]))
        rest = letters[whole:]
    if len(rest) > 1:
        pieces.append(binascii.a2b_base64(rest + b"=" * (4 - len(rest))))
    return b"".join(pieces), len(rest), strange


def _quoted_printable(view: memoryview, note: Note) -> bytes:
    octets: bytes | memoryview = view
    lone_cr = _LONE_CR.search(view)
    if lone_cr:
        note("quoted-printable-broken", "= before a lone CR")
    if lone_cr or _SOFT_BREAK_WITH_BLANKS.search(view):
        octets = _repaired(bytes(view))
    bad = _BAD_ESCAPE.search(octets)
    if bad is not None:
        note("quoted-printable-broken", bytes(octets[bad.start() : bad.start() + 8]).decode("ascii", "replace"))
    return binascii.a2b_qp(octets)


def _repaired(octets: bytes) -> bytes:
    """Quoted-printable that binascii reads as it is meant: it does not know blanks after a soft line break, which were
    added in transport (RFC 2045 6.7 (3)), and skips the line after "=" and a lone CR."""
    lines, at = [], 0
    while at < len(octets):  # some at a time: joining many pieces takes eighty octets for each of them
        end = octets.find(b"\n", at + _CHUNK) + 1 or len(octets)
        some = _SOFT_BREAK_WITH_BLANKS.sub(b"=", octets[at:end])
        lines.append(b"=\r\n".join(piece.replace(b"=\r", b"=3D\r") for piece in some.split(b"=\r\n")))
        at = end
    return b"".join(lines)


def _uuencode(view: memoryview, note: Note) -> bytes:
    """What stands between "begin" and "end" (POSIX uuencode)."""
    octets = bytes(view)
    begin = _UU_BEGIN.search(octets)
    if begin is None:
        note("uuencode-broken", "no begin line")
        return octets
    content, broken = bytearray(), 0
    for match in _UU_LINE.finditer(octets, begin.end()):
        line = match[0]
        if line.startswith(b"end"):
            break
        try:
            content += binascii.a2b_uu(line)
        except binascii.Error:
            try:  # some encoders append a check character: take as much as the first octet announces
                content += binascii.a2b_uu(line[: ((line[0] - 32 & 63) + 2) // 3 * 4 + 1])
            except binascii.Error as error:
                broken += 1
                if broken >= _UU_BROKEN:
                    break
                note("uuencode-broken", str(error))
    else:
        note("uuencode-broken", "no end line")
    return bytes(content)
