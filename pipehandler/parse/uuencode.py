"""Extract uuencoded files (POSIX) from the text of a message: the attachments of the time before MIME, still in use."""

import binascii
import re
from typing import NamedTuple

# A file needs a begin line and a valid line of data after it: "begin 644 things" alone may be prose.
_BEGIN = re.compile(rb"^begin(-base64)? [0-7]{3,4} ([^\r\n]{1,255})\r?\n", re.MULTILINE)
_LINE = re.compile(rb"([^\r\n]*)(?:\r?\n|\Z)")
_LENGTHS = tuple((((first - 32) & 63) + 2) // 3 * 4 + 1 for first in range(256))  # of a line, by its first octet
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


class File(NamedTuple):
    """One file: its name and content as octets, and whether its end line was found."""

    name: bytes
    content: bytes
    complete: bool


def split(text: bytes, files: int) -> tuple[bytes, list[File]]:
    """Return `text` without the files in it, and the files; at most `files` of them are extracted."""
    if b"begin" not in text:
        return text, []
    kept, found, position = list[bytes](), list[File](), 0
    for begin in _BEGIN.finditer(text):
        if begin.start() < position:
            continue
        if len(found) >= files:
            break
        lines = _read_base64(text, begin.end()) if begin[1] else _read(text, begin.end())
        if lines is None:
            continue
        content, end, complete = lines
        kept.append(text[position : begin.start()])
        found.append(File(begin[2].strip(), content, complete))
        position = end
    kept.append(text[position:])
    return b"".join(kept), found


def _read(text: bytes, position: int) -> tuple[bytes, int, bool] | None:
    """Return the content from `position` on, its end, and whether there was an end line; None if there are no data."""
    pieces, start = list[bytes](), position
    first = _LINE.match(text, position)
    # A first line that lost its blanks may as well be prose, unless all lines down to the end are data.
    certain = not (first and first.end() < len(text) and first[1] and len(first[1]) < _LENGTHS[first[1][0]])
    while position < len(text):
        match = _LINE.match(text, position)
        line = match[1] if match else b""
        end = match.end() if match else len(text)
        if line.rstrip() == b"end" and (pieces or position > start) and (certain or not pieces[-1]):
            return b"".join(pieces), end, True
        piece = _decoded(line)
        if piece and end == len(text) and match and match.end(1) == end:  # the line may be truncated
            piece = piece[: (len(line) - 1) * 3 // 4]
        if piece is None:
            break
        pieces.append(piece)
        position = end
    return (b"".join(pieces), position, False) if any(pieces) and certain else None


def _decoded(line: bytes) -> bytes | None:
    """Decode one line; return None if it is not a line of data.

    Encoders may append a check character. Trailing blanks, which stand for zeros, may be lost in transport.
    """
    if not line.strip(b"`"):
        return b""
    length = _LENGTHS[line[0]]
    if not 32 <= line[0] <= 96 or len(line) > length + 2:
        return None
    try:
        return binascii.a2b_uu(line[:length])
    except binascii.Error:
        return None


def _read_base64(text: bytes, position: int) -> tuple[bytes, int, bool] | None:
    pieces = list[bytes]()
    while position < len(text):
        match = _LINE.match(text, position)
        line = match[1].strip() if match else b""
        end = match.end() if match else len(text)
        if line == b"====":
            return b"".join(pieces), end, True
        if not _BASE64_LINE.fullmatch(line):
            break
        pieces.append(binascii.a2b_base64(line[: len(line) // 4 * 4]))
        position = end
    return (b"".join(pieces), position, False) if pieces else None
