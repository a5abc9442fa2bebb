"""The syntax of fields with parameters, Content-Type and Content-Disposition: RFC 2045 5.1, RFC 2183 2, RFC 2231."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# A quote inside a value ends it only if no other quote precedes the next semicolon, or another parameter follows.
_INNER_QUOTE = rb"\"(?=[^\";]*\")(?!\s{0,9}[\w*-]{1,40}\s{0,9}=)"
_PARAMETER = re.compile(
    rb";\s*([^\s=:;\"]+)\s*[=:]\s*(?:\"([^\"\\]*(?:(?:\\.|%s)[^\"\\]*)*)(?:\"|\\?\Z)|([^;]*))" % _INNER_QUOTE, re.DOTALL
)
_NO_VALUE = re.compile(rb"\s*[\w*-]+\s*=(?!\?)")  # a field that begins with a parameter
_NEXT = re.compile(rb";\s{0,9}[\w*-]{1,40}\s{0,9}=")
_FILE_NAMES = frozenset({b"name", b"name*", b"filename", b"filename*"})
_QUOTED_PAIR = re.compile(rb"\\([\"\\])")
_SECTION = re.compile(rb"(.+?)(?:\*(\d{1,3}))?(\*)?\Z", re.DOTALL)  # RFC 2231 3 and 4
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
COMMENT = re.compile(rb"\([^()]*\)")
_PARAMETERS = 200  # of one field; real ones have a handful, or some dozens for a long file name in sections


class Section(NamedTuple):
    """One section of a parameter (RFC 2231): its number, -1 for none; whether it is percent-encoded; its value."""

    number: int
    extended: bool
    octets: bytes


class ParameterField(NamedTuple):
    """One field: the `value` before the first semicolon, and the sections of its parameters by name.

    The value and the names are in lower case. `complete` is False if some sections were left out.
    """

    value: str
    sections: dict[str, list[Section]]
    complete: bool


def read(body: bytes) -> ParameterField:
    """Parse one field body, folded or not. Never raises; anything that is not a parameter is skipped."""
    value, semicolon, rest = body.partition(b";")
    if b"=" in value:
        if _NO_VALUE.match(value):
            value, rest = b"", body
        elif (words := value.split(None, 1))[1:]:
            value, rest = words[0], words[1] + semicolon + rest  # no semicolon before the first parameter
    sections: dict[str, list[Section]] = {}
    complete = True
    for count, (name, octets) in enumerate(_pairs(b";" + rest)):
        if count >= _PARAMETERS:
            complete = False
            break
        section = _SECTION.match(name)
        if section is None:
            continue
        octets = _FOLD.sub(b"", octets)
        sections.setdefault(section[1].decode("ascii", "replace").lower(), []).append(
            Section(int(section[2] or -1), bool(section[3]), octets)
        )
    value = b"".join(COMMENT.sub(b" ", value).split())
    return ParameterField(value.decode("ascii", "replace").lower(), sections, complete)


def _pairs(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the value of each parameter; `text` begins with a semicolon."""
    match = _PARAMETER.search(text)
    while match is not None:
        end = match.end()
        if match[2] is None:
            following = _PARAMETER.search(text, end)
            octets = match[3]
            if match[1].lower() in _FILE_NAMES:  # a file name without quotes may have semicolons
                behind = text[end : following.start() if following else len(text)]
                octets += behind if b"." in behind else b""
            octets = octets.strip(b"; \t\r\n")
            octets = octets.strip(b'"') if octets.count(b'"') == 1 else octets
        else:
            octets = match[2]
            if end == len(text) and not text.endswith(b'"') and (cut := _NEXT.search(octets)):  # a quote without end
                octets, end = octets[: cut.start()], match.start(2) + cut.start()
            octets = _QUOTED_PAIR.sub(rb"\1", octets)
            following = _PARAMETER.search(text, end)
        yield match[1], octets
        match = following


def token(body: bytes) -> bytes:
    """Return the one word of a field such as Content-Transfer-Encoding (RFC 2045 6.1) in lower case; b"" if absent."""
    words = COMMENT.sub(b" ", body).lower().split()
    return words[0].strip(b";\"'") if words else b""
