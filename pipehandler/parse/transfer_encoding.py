"""Undo a Content-Transfer-Encoding (RFC 2045 6), exactly and with as few copies as possible."""

import binascii
import re
from collections.abc import Callable
from contextlib import suppress

Note = Callable[[str, str], None]  # a code of defect.DEFECTS, and its detail

_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_BASE64_END = re.compile(rb"(?:[A-Za-z0-9+/]+|[^\s=]*=+)?")  # a last line that is truncated, or has invalid octets
_BASE64_LINE = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)")
_SAME_LINE = re.compile(rb"=*[ \t]+[^\s=]")  # text after padding and a blank on the same line
_SURE = 20  # octets of a line that is base64 although text is above it
_USUAL_WIDTH = 56  # of a line of base64; a shorter first line is also the last
_LINE_LENGTH = 1_000  # octets in which the first line must end
_FOOTER = 65_536  # octets at the end of base64 that are searched for a footer
_BLOCKS = 100  # of base64, each with its own padding
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|\n|\r\n|\Z)")
_BLANKS_AT_END = (b" \n", b"\t\n", b" \r\n", b"\t\r\n")
_UNDERLINE = re.compile(
    rb"^((?:==){2,})=(?=\r?$)", re.MULTILINE
)  # a line of only "=", whose end is not a soft line break
_LONE_CR = re.compile(rb"=\r(?!\n)")
_UU_BEGIN = re.compile(rb"^begin [^\n]*\n", re.MULTILINE)
_UU_LINE = re.compile(rb"[^\r\n]+")
_UU_BROKEN = 100  # broken lines, after which the rest is not read
_CHUNK = 1 << 20

_IDENTITY = frozenset({"", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits", "none"})
_UU = frozenset({"x-uuencode", "uuencode", "x-uue", "uue"})


def named(word: str) -> str:
    """Return the usual name of an encoding (in lower case) that may be written in another way, such as x-base64."""
    letters = word.removeprefix("x-").replace("-", "").replace("_", "")
    if letters in ("base64", "b"):
        return "base64"
    return "quoted-printable" if letters in ("quotedprintable", "quoted", "q") else word  # "quoted printable"


def decode(raw: bytes, start: int, end: int, encoding: str, note: Note) -> bytes:
    """Decode raw[start:end] from the transfer encoding `encoding` (as `named` returns it, "" for none).

    Never raises: broken content is decoded as far as it goes and reported to `note`; octets in an unknown encoding are
    returned as they are (RFC 2045 6.4).
    """
    view = memoryview(raw)[start:end]
    if encoding == "base64":
        return _base64(raw, start, end, note)
    if encoding == "quoted-printable":
        return _quoted_printable(raw, start, end, note)
    if encoding in _UU:
        return _uuencode(view, note)
    if encoding not in _IDENTITY:
        note("transfer-encoding-unknown", encoding)
    return bytes(view)


def _base64(raw: bytes, start: int, end: int, note: Note) -> bytes:
    letters = end - start - _blanks(raw, start, end)
    padding = raw.find(b"=", start, end)
    if padding < 0 or not raw[padding:end].strip(b"= \t\r\n"):
        letters -= raw.count(b"=", padding, end) if padding >= 0 else 0
        stop = padding if padding >= 0 else end
        if raw[stop : min(stop + -letters % 4, end)] == b"=" * (-letters % 4):
            with suppress(binascii.Error):  # one letter too many, or invalid octets
                content = binascii.a2b_base64(memoryview(raw)[start : stop + -letters % 4])
                if len(content) == letters * 3 // 4:
                    return content
    return _broken_base64(raw, start, end, note)


def _broken_base64(raw: bytes, start: int, end: int, note: Note) -> bytes:
    """Decode base64 that has invalid octets, wrong padding, several blocks or a footer: all blocks as far as they go.

    RFC 2045 6.8: other characters are ignored, and "=" marks an end. After that, mailing lists append a footer, as
    plain text or as another block of base64.
    """
    begin = _beginning(raw, start, end)
    if begin == end:
        note("base64-broken", "it is plain text")
        return raw[start:end]
    if begin > start:
        note("base64-broken", f"{begin - start} octets of text above it")
        start = begin
    stop = _footer(raw, start, end)
    if stop < end and (footer := raw[stop:end].strip()):
        note("base64-after-padding", f"{len(footer)} octets")
    pieces: list[bytes] = []
    strange = rest = 0
    while start < stop:
        padding = raw.find(b"=", start, stop)
        padding = stop if padding < 0 else padding
        if not raw[start:padding].strip(b" \t\r\n"):  # more padding
            start = padding + 1
            continue
        content, left, others = _base64_in_chunks(memoryview(raw)[start:padding])
        if (pieces and (content or left)) and (
            others or len(pieces) == _BLOCKS or b" " in raw[start:padding].strip() or _SAME_LINE.match(raw, start, stop)
        ):
            note("base64-after-padding", f"{stop - start} octets")
            break
        if content or left:
            pieces.append(content)
        strange += others
        if left == 1 or raw.count(b"=", padding, padding + 4 - left) < -left % 4:
            rest = left
        start = padding + 1
    if strange:
        note("base64-broken", f"{strange} strange octets")
    elif rest:
        note("base64-broken", "one letter too many" if rest == 1 else "padding is missing")
    elif len(pieces) > 1:
        note("base64-broken", f"{len(pieces)} blocks")
    return b"".join(pieces)


def _beginning(raw: bytes, start: int, end: int) -> int:
    """Return where base64 begins, below text that something put above it; `end` if all of it is text.

    RFC 2045 6.8 ignores other octets, but text has so many of them and of blanks inside lines that it is no base64.
    """
    at, lines, blanks = start, 0, 0
    for line in raw[start : min(end, start + _FOOTER)].split(b"\n"):
        octets = line.strip()
        if octets and _BASE64_LINE.fullmatch(octets) and (not lines or len(octets) >= _SURE):
            break
        lines += bool(octets)
        blanks += len(octets.split()) - bool(octets)
        at += len(line) + 1
    else:
        at = end
    text = raw[start : min(at, start + _FOOTER)]
    letters = len(text.translate(None, _NOT_BASE64))
    strange = len(text) - letters - _blanks(text, 0, len(text))
    marks, visible = blanks + strange, letters + strange
    few, many = (7, 4) if at == end else (10, 5)  # base64 below it makes text likelier
    is_text = marks > 1 and marks * few > visible and (blanks or strange * many >= visible)
    is_text = is_text or blanks >= 2 * max(2, lines)  # words without punctuation
    return at if is_text else start


def _footer(raw: bytes, start: int, end: int) -> int:
    """Return where a footer that is not base64 begins; `end` if there is none.

    It follows the last full line. Only an encoder's last line is shorter than the others, or ends with padding.
    """
    first = raw[start : min(end, start + _LINE_LENGTH)].partition(b"\n")[0].strip()
    if not _BASE64_LINE.fullmatch(first):
        return end
    width, stop, after, full = len(first), end, False, 0
    at = max(start, raw.rfind(b"\n", start, max(start, end - _FOOTER)) + 1)
    for line in raw[at:end].split(b"\n"):
        octets = line.strip()
        if _BASE64_LINE.fullmatch(octets) and (len(octets) >= width or octets.endswith(b"=")):
            full, after, stop = full + 1, False, end
        elif after or not octets or (full == 1 and width < _USUAL_WIDTH) or not _BASE64_LINE.fullmatch(octets):
            stop = min(stop, at)  # unless a full line follows: then these are invalid octets within the base64
        else:
            after = True
        at += len(line) + 1
    return end if _BASE64_END.fullmatch(raw[stop:end].strip()) else stop


def _blanks(octets: bytes, start: int, end: int) -> int:
    return sum(octets.count(blank, start, end) for blank in (b"\n", b"\r", b" ", b"\t"))


def _base64_in_chunks(view: memoryview) -> tuple[bytes, int, int]:
    """Return the content, the size of an incomplete last group, and the number of octets neither base64 nor blank."""
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


def _quoted_printable(raw: bytes, start: int, end: int, note: Note) -> bytes:
    octets: bytes | memoryview = memoryview(raw)[start:end]
    if any(raw.find(blanks, start, end) >= 0 for blanks in _BLANKS_AT_END) or raw[end - 1 : end] in (b" ", b"\t"):
        octets = _without_trailing_blanks(bytes(octets))
    if _LONE_CR.search(octets):
        note("quoted-printable-broken", "= before a lone CR")
        octets = _with_lone_cr_escaped(bytes(octets))
    bad = _BAD_ESCAPE.search(octets)
    if bad is not None:
        note("quoted-printable-broken", bytes(octets[bad.start() : bad.start() + 8]).decode("ascii", "replace"))
        # RFC 2045 6.7, note 2: "=" and the next character are kept as they are. binascii drops one of two "=".
        octets = _by_chunks(bytes(octets), _with_pairs_escaped)
    return binascii.a2b_qp(octets)


def _without_trailing_blanks(octets: bytes) -> bytes:
    """Remove the blanks at line ends, which were added in transport (RFC 2045 6.7 (3))."""
    return _by_chunks(octets, lambda some: b"\n".join(map(_stripped, some.split(b"\n"))))


def _stripped(line: bytes) -> bytes:
    return line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t")


def _with_pairs_escaped(octets: bytes) -> bytes:
    return _UNDERLINE.sub(rb"\1=3D", octets).replace(b"==", b"=3D=3D")


def _with_lone_cr_escaped(octets: bytes) -> bytes:
    """Escape "=" before a lone CR: binascii would skip the rest of the line."""
    return _by_chunks(octets, lambda some: b"=\r\n".join(s.replace(b"=\r", b"=3D\r") for s in some.split(b"=\r\n")))


def _by_chunks(octets: bytes, repair: Callable[[bytes], bytes]) -> bytes:
    """Apply `repair` to chunks of whole lines: joining many small pieces would take eighty octets for each."""
    chunks, at = [], 0
    while at < len(octets):
        end = octets.find(b"\n", at + _CHUNK) + 1 or len(octets)
        chunks.append(repair(octets[at:end]))
        at = end
    return b"".join(chunks)


def _uuencode(view: memoryview, note: Note) -> bytes:
    """Decode the lines between "begin" and "end" (POSIX uuencode)."""
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
            try:  # some encoders append a check character: use the length in the first octet
                content += binascii.a2b_uu(line[: ((line[0] - 32 & 63) + 2) // 3 * 4 + 1])
            except binascii.Error as error:
                broken += 1
                if broken >= _UU_BROKEN:
                    break
                note("uuencode-broken", str(error))
    else:
        note("uuencode-broken", "no end line")
    return bytes(content)
